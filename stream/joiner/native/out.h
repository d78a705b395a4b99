// What a join gives out until its results are taken.
#pragma once
#include "exposure.h"

namespace onerec {

// As `binding.Records`: records in a row, each of a user; the header of its codec is put before it when it is taken.
struct Records {
    static constexpr size_t ROOM = 16;  // for a codec's header
    static constexpr int64_t TOMBSTONE = -1;

    Bytes bytes;
    std::vector<int64_t> users, begins, ends, times_ms;

    void begin() {
        bytes.data.resize(bytes.data.size() + ROOM);
        begins.push_back(static_cast<int64_t>(bytes.data.size()));
    }
    void end(int64_t user, int64_t time_ms) {
        users.push_back(user);
        ends.push_back(static_cast<int64_t>(bytes.data.size()));
        times_ms.push_back(time_ms);
    }
    void tombstone(int64_t user) {
        users.push_back(user);
        begins.push_back(0);
        ends.push_back(TOMBSTONE);
        times_ms.push_back(0);
    }
    void put_header(const Byte* header, size_t size) {
        for (auto& begin : begins) {
            begin -= static_cast<int64_t>(size);
            std::memcpy(bytes.data.data() + begin, header, size);
        }
    }
    void clear() {
        bytes.data.clear();
        for (auto* column : {&users, &begins, &ends, &times_ms}) column->clear();
    }
};

// As `binding.REASONS`.
enum Why : int64_t { TOO_MANY_OPEN, TOO_OLD, NO_IMPRESSION, HAD_CLOSED };

// As the columns of `binding.REFUSALS`: a record is named by its place in the batch, or it comes whole.
struct Refusal {
    int64_t source, why, item, place;
    int64_t offset, timestamp_ms, key_begin, key_size, value_begin, value_size;
};

struct Out {
    Records sessions, histories, changelog;
    std::vector<Refusal> refusals;
    Bytes refused;
    int64_t events = 0, late_impressions = 0, duplicates = 0;
    int64_t closed[3] = {};  // sessions by what closed them

    void refuse(Source source, Why why, int64_t item, int64_t place) {
        refusals.push_back({source, why, item, place, 0, 0, 0, 0, 0, 0});
    }
    void refuse(Why why, int64_t item, const Came& came) {
        const auto key = static_cast<int64_t>(refused.data.size()), value = key + static_cast<int64_t>(came.key.size());
        refused.raw(came.key.data(), came.key.size());
        refused.raw(came.value.data(), came.value.size());
        refusals.push_back({ACTIONS, why, item, -1, came.offset, came.timestamp_ms, key,
                            came.has_key ? value - key : -1, value, static_cast<int64_t>(came.value.size())});
    }
};

}  // namespace onerec
