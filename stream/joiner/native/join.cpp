// What binding.py calls. Nothing here throws but for want of memory, and nothing is checked that Python has checked.
#include "join.h"

using namespace onerec;

namespace {

// As `binding.View`.
struct View {
    int64_t count;
    const int64_t *users, *begins, *ends, *times_ms;
    const Byte* bytes;
    int64_t size;
};

View view(const Records& records) {
    return {static_cast<int64_t>(records.users.size()),
            records.users.data(),
            records.begins.data(),
            records.ends.data(),
            records.times_ms.data(),
            records.bytes.data.data(),
            static_cast<int64_t>(records.bytes.data.size())};
}

template <class Number>
Number read(const Byte*& at) {
    Number value;
    std::memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value;
}

}  // namespace

extern "C" {

Join* onerec_join_new(const Rules* rules) { return new Join(*rules); }
void onerec_join_free(Join* join) { delete join; }

// Rows of values that start with `header` and hold nothing but it and what is certainly fine; the others are not good.
// How many are.
int64_t onerec_join_decode(int64_t source, const Byte* header, int64_t header_size, const Byte* values,
                           const int64_t* sizes, int64_t count, const Most* most, Row* rows, Byte* good) {
    int64_t found = 0;
    for (int64_t place = 0; place < count; values += sizes[place++]) {
        good[place] = sizes[place] >= header_size && !std::memcmp(values, header, header_size) &&
                      decode(static_cast<Source>(source), values + header_size, values + sizes[place], *most,
                             rows[place]);
        found += good[place];
    }
    return found;
}

int64_t onerec_join_welcome(Join* join, const Row* rows, const Byte* good, int64_t count, int64_t* ids) {
    return join->welcome(rows, good, count, ids);
}

void onerec_join_history(Join* join, int64_t user, const Byte* items, const Byte* times_ms, const Byte* labels,
                         int64_t count, int64_t updated_ms) {
    User* found = join->find(user);
    User& known = found ? *found : join->make(user);
    known.history.extend(items, times_ms, labels, count);
    known.updated_ms = updated_ms;
}

// Join these rows; how many refusals there are. `batch` is needed for actions alone.
int64_t onerec_join_take(Join* join, int64_t source, const Row* rows, const Byte* good, int64_t count,
                         const Batch* batch) {
    if (source == IMPRESSIONS) {
        for (int64_t place = 0; place < count; ++place)
            if (good[place]) join->impression(rows[place], place);
    } else {
        const Byte *key = batch->keys, *value = batch->values;
        for (int64_t place = 0; place < count; ++place) {
            const int64_t key_size = batch->key_sizes[place], value_size = batch->value_sizes[place];
            if (good[place])
                join->action(rows[place], place, batch->offsets[place], batch->timestamps_ms[place], key, key_size,
                             value, value_size);
            key += std::max<int64_t>(0, key_size);
            value += value_size;
        }
    }
    return static_cast<int64_t>(join->out.refusals.size());
}

void onerec_join_advance(Join* join, int64_t watermark_ms, int64_t most) { join->advance(watermark_ms, most); }
int64_t onerec_join_is_behind(const Join* join) { return join->is_behind(); }
int64_t onerec_join_close_idle(Join* join, int64_t most) { return join->close_idle(most); }
int64_t onerec_join_touched(const Join* join) { return join->touched(); }

// Put back a user's state from its bytes in the changelog, whose version Python has looked at, and the decoded actions
// that wait; whether the bytes are whole. The user's history is here already.
int64_t onerec_join_restore(Join* join, int64_t id, const Byte* state, int64_t size, const Row* waiting,
                            int64_t waiting_count) {
    constexpr int64_t COUNTS = 17, CAME = 24;
    User* found = join->find(id);
    User& user = found ? *found : join->make(id);
    const Byte *at = state + 1, *end = state + size;
    if (size < COUNTS) return false;
    int64_t counts[4];
    for (auto& count : counts) count = read<uint32_t>(at);
    const auto [open, waits, session, beyond] = counts;
    if (end - at < static_cast<int64_t>(sizeof(Packed)) * (open + session) + 17 * beyond || waits != waiting_count)
        return false;
    for (int64_t index = 0; index < open + session; ++index, at += sizeof(Packed)) {
        const auto exposure = Exposure::unpack(at);
        if (index < open)
            user.open.push(exposure);
        else
            user.session.push_back(exposure);
    }
    History whole;
    whole.extend(at, at + 8 * beyond, at + 16 * beyond, beyond);
    at += 17 * beyond;
    const auto& newest = user.history;
    for (int64_t index = 0; index < newest.size(); ++index)
        whole.append(newest.items[index], newest.times_ms[index], newest.labels[index], INT64_MAX);
    user.history = std::move(whole);
    user.stored = true;
    for (int64_t index = 0; index < waits; ++index) {
        if (end - at < CAME) return false;
        Came came{};
        came.offset = read<int64_t>(at);
        came.timestamp_ms = read<int64_t>(at);
        const auto key_size = read<int32_t>(at), value_size = read<int32_t>(at);
        const int64_t key_bytes = std::max(0, key_size);
        if (value_size < 0 || end - at < key_bytes + value_size) return false;
        came.has_key = key_size >= 0;
        came.key.assign(at, at + key_bytes);
        came.value.assign(at + key_bytes, at + key_bytes + value_size);
        at += key_bytes + value_size;
        user.wait({waiting[index], std::move(came)});
    }
    join->restored(user);
    return true;
}

// Write what has changed, with the codecs' headers; `views` of sessions, histories and changelog hold until `clear`.
void onerec_join_write(Join* join, const Byte* session_header, int64_t session_size, const Byte* history_header,
                       int64_t history_size, View* views, int64_t* counts) {
    auto& out = join->out;
    join->write();
    out.sessions.put_header(session_header, session_size);
    out.histories.put_header(history_header, history_size);
    views[0] = view(out.sessions);
    views[1] = view(out.histories);
    views[2] = view(out.changelog);
    const int64_t all[6] = {out.events, out.late_impressions, out.duplicates, out.closed[0], out.closed[1], out.closed[2]};
    std::memcpy(counts, all, sizeof all);
}
void onerec_join_clear(Join* join) {
    auto& out = join->out;
    for (auto* records : {&out.sessions, &out.histories, &out.changelog}) records->clear();
    out.events = out.late_impressions = out.duplicates = 0;
    std::fill_n(out.closed, 3, 0);
}

// The refusals and the bytes of the records that they hold; both stay until `clear_refusals`.
int64_t onerec_join_refusals(const Join* join, const Refusal** refusals, const Byte** bytes, int64_t* size) {
    *refusals = join->out.refusals.data();
    *bytes = join->out.refused.data.data();
    *size = static_cast<int64_t>(join->out.refused.data.size());
    return static_cast<int64_t>(join->out.refusals.size());
}
void onerec_join_clear_refusals(Join* join) {
    join->out.refusals.clear();
    join->out.refused.data.clear();
}

void onerec_join_forget(Join* join, int64_t* open) {
    join->forget();
    std::copy_n(join->open, 3, open);
}
void onerec_join_open(const Join* join, int64_t* open) { std::copy_n(join->open, 3, open); }

}  // extern "C"
