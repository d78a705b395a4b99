// An impression while its actions are waited for, and an action that waits for its impression: as
// `stream.joiner.exposure`, with the bytes that `stream.joiner.state` makes of them.
#pragma once
#include <tuple>

#include "rows.h"

namespace onerec {

// As `binding.Rules`.
struct Rules {
    int64_t session_items, session_gap_ms, window_ms, history_items, most_open;
    int64_t long_view_ms, clock_ms, min_watched, min_total_watch_ms, need_interaction, need_all;
    double short_video_share;

    bool is_long_view(int64_t watch_ms, int64_t duration_ms) const {
        const int64_t whole_ms = duration_ms / clock_ms * clock_ms;
        return watch_ms >= long_view_ms || (whole_ms > 0 && watch_ms >= short_video_share * whole_ms);
    }
};

constexpr Byte VIEWED = 1, INTERACTION = 2 | 4 | 8 | 16;
inline Byte bit_of(int64_t kind) { return static_cast<Byte>(1 << kind); }

// An exposure in the changelog, byte for byte.
#pragma pack(push, 1)
struct Packed {
    int64_t request, item, position, time_ms;
    Byte has_version;
    int64_t version, produced_ms;
    Byte kinds;
    int64_t watch_ms, duration_ms;
};
#pragma pack(pop)
static_assert(sizeof(Packed) == 66, "as `stream.joiner.state` packs it");

struct Exposure {
    int64_t request, item, position, time_ms, has_version, version, produced_ms;
    int64_t watch_ms = 0, duration_ms = 0;
    Byte kinds = 0;

    static Exposure of(const Row& row) {
        return {row.request, row.item, row.position_or_kind, row.time_ms, row.has_a, row.a, row.produced_ms};
    }
    bool named(int64_t a_request, int64_t an_item) const { return request == a_request && item == an_item; }
    // Event-time order; ties as they stood in the answer.
    auto order() const { return std::make_tuple(time_ms, request, position, item); }

    // Add what an action says; false where nothing is new.
    bool take(const Row& action) {
        const auto known = std::make_tuple(kinds, watch_ms, duration_ms, produced_ms);
        if (!kinds || action.produced_ms > produced_ms) produced_ms = action.produced_ms;
        kinds |= bit_of(action.position_or_kind);
        if (action.has_a && action.a > watch_ms) watch_ms = action.a;
        if (action.has_b && action.b > duration_ms) duration_ms = action.b;
        return known != std::make_tuple(kinds, watch_ms, duration_ms, produced_ms);
    }
    Byte labels(const Rules& rules) const {
        Byte labels = kinds & ~VIEWED;
        if ((kinds & VIEWED) && rules.is_long_view(watch_ms, duration_ms)) labels |= VIEWED;
        return labels;
    }

    void pack(Bytes& out) const {
        const Packed packed{request, item, position, time_ms, has_version != 0, version, produced_ms, kinds, watch_ms,
                            duration_ms};
        out.raw(&packed, sizeof packed);
    }
    static Exposure unpack(const Byte* at) {
        Packed in;
        std::memcpy(&in, at, sizeof in);
        Exposure exposure{in.request, in.item, in.position, in.time_ms, in.has_version, in.version, in.produced_ms};
        exposure.watch_ms = in.watch_ms;
        exposure.duration_ms = in.duration_ms;
        exposure.kinds = in.kinds;
        return exposure;
    }
};

// Where a record stood in the log and its bytes, to refuse it whole later.
struct Came {
    int64_t offset, timestamp_ms;
    bool has_key;
    std::vector<Byte> key, value;
};

struct Waiting {
    static constexpr int64_t USUAL_BYTES = 128;

    Row action;
    Came came;

    int64_t places() const { return 1 + static_cast<int64_t>(came.key.size() + came.value.size()) / USUAL_BYTES; }
    auto order() const {
        return std::make_tuple(action.time_ms, action.request, action.user, action.item, action.position_or_kind,
                               came.offset);
    }
    void pack(Bytes& out) const {
        out.number(came.offset);
        out.number(came.timestamp_ms);
        out.number(came.has_key ? static_cast<int32_t>(came.key.size()) : int32_t{-1});
        out.number(static_cast<int32_t>(came.value.size()));
        out.raw(came.key.data(), came.key.size());
        out.raw(came.value.data(), came.value.size());
    }
};

// The label byte that an action alone makes.
inline Byte labels_of(const Row& action, const Rules& rules) {
    const Byte bit = bit_of(action.position_or_kind);
    return bit != VIEWED || rules.is_long_view(action.a, action.b) ? bit : 0;
}

}  // namespace onerec
