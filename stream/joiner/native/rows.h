// Events as the join takes them, and their decoding: what `stream.joiner.columns` does, value by value.
#pragma once
#include <cstring>

#include "bytes.h"

namespace onerec {

enum Source : int64_t { IMPRESSIONS, ACTIONS };

// As `stream.joiner.rows`; `a` and `b` are what may be null: 0 where it is.
struct Row {
    int64_t request, user, item;
    int64_t position_or_kind;
    int64_t time_ms;
    int64_t a;  // model_version, or watch_ms
    int64_t b;  // nothing, or duration_ms
    int64_t produced_ms;
    int64_t has_a, has_b;

    bool operator==(const Row& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};

// The largest values that are certainly fine, in the order of Row.
struct Most {
    int64_t position_or_kind, time_ms, a, b, produced_ms;
};

class Reader {
public:
    Reader(const Byte* begin, const Byte* end) : at_(begin), end_(end) {}

    // A number from 0 to `most`; anything else makes the value one for the codec.
    int64_t within(int64_t most) {
        uint64_t raw = 0;
        for (int shift = 0;; shift += 7) {
            if (at_ == end_ || shift > 63) return fail();
            const Byte byte = *at_++;
            if (shift == 63 && byte > 1) return fail();
            raw |= static_cast<uint64_t>(byte & 0x7f) << shift;
            if (byte < 0x80) break;
        }
        const auto value = static_cast<int64_t>(raw >> 1);
        return (raw & 1) || value > most ? fail() : value;
    }
    int64_t optional(int64_t most, int64_t& there) {
        there = within(1);
        return there ? within(most) : 0;
    }
    bool whole() const { return good_ && at_ == end_; }

private:
    int64_t fail() {
        good_ = false;
        at_ = end_;
        return 0;
    }
    const Byte *at_, *end_;
    bool good_ = true;
};

inline bool decode(Source source, const Byte* begin, const Byte* end, const Most& most, Row& row) {
    Reader in(begin, end);
    row = {};
    row.request = in.within(INT64_MAX);
    row.user = in.within(INT64_MAX);
    row.item = in.within(INT64_MAX);
    row.position_or_kind = in.within(most.position_or_kind);
    row.time_ms = in.within(most.time_ms);
    row.a = in.optional(most.a, row.has_a);
    if (source == ACTIONS) row.b = in.optional(most.b, row.has_b);
    row.produced_ms = in.within(most.produced_ms);
    return in.whole();
}

}  // namespace onerec
