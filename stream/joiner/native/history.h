// A user's last exposures, oldest first: `stream.joiner.history`.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "bytes.h"

namespace onerec {

// A list that forgets its oldest without moving the others each time.
template <class Value>
class Tail {
public:
    size_t size() const { return values_.size() - start_; }
    const Value* data() const { return values_.data() + start_; }
    Value& operator[](size_t index) { return values_[start_ + index]; }
    const Value& operator[](size_t index) const { return values_[start_ + index]; }
    void push(Value value) { values_.push_back(value); }
    void insert(size_t index, Value value) { values_.insert(values_.begin() + start_ + index, value); }
    void extend(const Byte* packed, size_t count) {
        const size_t before = values_.size();
        values_.resize(before + count);
        if (count) std::memcpy(values_.data() + before, packed, count * sizeof(Value));
    }
    void drop(size_t oldest) {
        start_ += oldest;
        if (start_ > size()) {
            values_.erase(values_.begin(), values_.begin() + start_);
            start_ = 0;
        }
    }

private:
    std::vector<Value> values_;
    size_t start_ = 0;
};

class History {
public:
    int64_t size() const { return static_cast<int64_t>(labels.size()); }

    // Put an exposure last and forget all but the newest; its index.
    int64_t append(int64_t item, int64_t time_ms, Byte label, int64_t keep_newest) {
        insert_at(size(), item, time_ms, label);
        keep(keep_newest);
        return size() - 1;
    }
    // Put it before the last `before_last` ones, `by_time` also before those that are later; its index.
    int64_t insert(int64_t item, int64_t time_ms, Byte label, int64_t before_last, bool by_time) {
        int64_t index = std::max<int64_t>(0, size() - before_last);
        if (by_time)
            while (index > 0 && times_ms[index - 1] > time_ms) --index;
        insert_at(index, item, time_ms, label);
        return index;
    }
    // Forget all but the newest; how many were forgotten.
    int64_t keep(int64_t newest) {
        const int64_t surplus = std::max<int64_t>(0, size() - newest);
        if (surplus) {
            items.drop(surplus);
            times_ms.drop(surplus);
            labels.drop(surplus);
        }
        return surplus;
    }
    bool holds(int64_t item, int64_t time_ms) const {
        for (int64_t index = 0; index < size(); ++index)
            if (items[index] == item && times_ms[index] == time_ms) return true;
        return false;
    }
    // Add label bits to the item's last exposure not later than `until_ms` among the `newest`; whether that changed
    // anything, nothing where the item is not there.
    std::optional<bool> add_labels(int64_t item, int64_t until_ms, Byte label, int64_t newest) {
        for (int64_t index = size() - 1; index >= std::max<int64_t>(0, size() - newest); --index)
            if (items[index] == item && times_ms[index] <= until_ms) {
                const Byte known = labels[index];
                labels[index] |= label;
                return labels[index] != known;
            }
        return std::nullopt;
    }
    void extend(const Byte* packed_items, const Byte* packed_times, const Byte* packed_labels, size_t count) {
        items.extend(packed_items, count);
        times_ms.extend(packed_times, count);
        labels.extend(packed_labels, count);
    }
    // The three fields that records carry, of exposures `start` to `stop` (exclusive).
    void write(Bytes& out, int64_t start, int64_t stop) const {
        const size_t count = stop - start;
        out.avro_bytes(items.data() + start, 8 * count);
        out.avro_bytes(times_ms.data() + start, 8 * count);
        out.avro_bytes(labels.data() + start, count);
    }

    Tail<int64_t> items, times_ms;
    Tail<Byte> labels;

private:
    void insert_at(int64_t index, int64_t item, int64_t time_ms, Byte label) {
        items.insert(index, item);
        times_ms.insert(index, time_ms);
        labels.insert(index, label);
    }
};

}  // namespace onerec
