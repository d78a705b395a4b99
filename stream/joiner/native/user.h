// One user's part of the join: `stream.joiner.user`, which says what is done when; this does the same.
#pragma once
#include <deque>

#include "history.h"
#include "out.h"

namespace onerec {

constexpr int64_t NEVER_MS = INT64_MAX;
constexpr Byte VERSION = 1;  // of `stream.joiner.state`
enum ClosedBy : int64_t { FULL, GAP, IDLE };

// Open exposures in the order in which they came. An action is mostly about one that came lately.
class Open {
public:
    size_t size() const { return exposures_.size(); }
    auto begin() const { return exposures_.begin(); }
    auto end() const { return exposures_.end(); }

    Exposure* find(int64_t request, int64_t item) {
        const uint32_t tag = tag_of(request, item);
        for (size_t index = tags_.size(); index-- > 0;)
            if (tags_[index] == tag && exposures_[index].named(request, item)) return &exposures_[index];
        return nullptr;
    }
    void push(const Exposure& exposure) {
        exposures_.push_back(exposure);
        tags_.push_back(tag_of(exposure.request, exposure.item));
    }
    // Take out those up to `until_ms`, in event-time order.
    std::vector<Exposure> take(int64_t until_ms) {
        std::vector<Exposure> taken;
        size_t kept = 0;
        for (size_t index = 0; index < exposures_.size(); ++index) {
            if (exposures_[index].time_ms <= until_ms) {
                taken.push_back(exposures_[index]);
                continue;
            }
            if (kept != index) exposures_[kept] = exposures_[index], tags_[kept] = tags_[index];
            ++kept;
        }
        exposures_.resize(kept);
        tags_.resize(kept);
        std::sort(taken.begin(), taken.end(), [](auto& one, auto& other) { return one.order() < other.order(); });
        return taken;
    }
    int64_t first_ms() const {
        int64_t first = NEVER_MS;
        for (const auto& exposure : exposures_) first = std::min(first, exposure.time_ms);
        return first;
    }

private:
    static uint32_t tag_of(int64_t request, int64_t item) {
        const auto mixed = (static_cast<uint64_t>(request) * 31 + static_cast<uint64_t>(item)) * 0x9e3779b97f4a7c15;
        return static_cast<uint32_t>(mixed >> 32);
    }
    std::vector<Exposure> exposures_;
    std::vector<uint32_t> tags_;
};

// Waiting actions by what they are about, in the order in which the first of each came.
struct About {
    int64_t request, item;
    std::vector<Waiting> actions;
};

struct User {
    int64_t id, number;  // `number`: users in the order in which they came
    History history;     // reaches further back than `history_items` by the exposures of the session
    Open open;
    std::vector<About> waiting;
    std::vector<Exposure> session;
    int64_t due_ms = NEVER_MS, updated_ms = 0, waiting_places = 0;
    int64_t counted[3] = {};  // open, waiting, sessions as of the last commit
    bool state_changed = false, history_changed = false, stored = false, touched = false;

    bool is_idle() const { return !open.size() && waiting.empty() && session.empty(); }
    int64_t waiting_count() const {
        int64_t count = 0;
        for (const auto& about : waiting) count += static_cast<int64_t>(about.actions.size());
        return count;
    }
    std::vector<Waiting>* waiting_for(int64_t request, int64_t item) {
        for (auto& about : waiting)
            if (about.request == request && about.item == item) return &about.actions;
        return nullptr;
    }
    void wait(Waiting&& action) {
        waiting_places += action.places();
        auto* others = waiting_for(action.action.request, action.action.item);
        if (!others) others = &waiting.emplace_back(About{action.action.request, action.action.item, {}}).actions;
        others->push_back(std::move(action));
    }

    // Do what falls due up to the watermark, in order of its time, and find what is due next.
    void work_off(int64_t watermark_ms, const Rules& rules, Out& out) {
        const int64_t until_ms = watermark_ms - rules.window_ms;
        const auto closing = open.take(until_ms);
        const auto overdue = take_overdue(until_ms);
        if (!closing.empty() || !overdue.empty()) state_changed = true;
        auto coming = closing.begin();
        for (const auto& action : overdue) {
            for (; coming != closing.end() && coming->time_ms <= action.action.time_ms; ++coming) add(*coming, rules, out);
            const int64_t next_ms = coming != closing.end() ? coming->time_ms : open.first_ms();
            close_gap(action.action.time_ms + rules.window_ms, next_ms, rules, out);
            resolve(action.action, &action.came, -1, rules, out);
        }
        for (; coming != closing.end(); ++coming) add(*coming, rules, out);
        const int64_t first_open_ms = open.first_ms();
        close_gap(watermark_ms, first_open_ms, rules, out);
        due_ms = next_due_ms(first_open_ms, rules);
    }

    // A closed exposure enters history and session; a late one takes its place in event time.
    void add(const Exposure& exposure, const Rules& rules, Out& out, bool late = false) {
        if (late && stands_alone(exposure, rules)) return add_alone(exposure, rules, out);
        if (!session.empty() && exposure.time_ms >= session.back().time_ms + rules.session_gap_ms)
            close_session(GAP, rules, out);
        int64_t after = 0;
        if (late)
            for (const auto& other : session) after += other.order() > exposure.order();
        session.insert(session.end() - after, exposure);
        remember(exposure, rules, after, false);
        if (static_cast<int64_t>(session.size()) >= rules.session_items) close_session(FULL, rules, out);
    }

    void close_session(ClosedBy closed_by, const Rules& rules, Out& out) {
        write_session(session.data(), session.size(), history.size() - static_cast<int64_t>(session.size()), closed_by,
                      rules, out);
        session.clear();
        history.keep(rules.history_items);
        state_changed = true;
    }

    // An action without an open impression: its labels still reach the history where the item is there.
    void resolve(const Row& action, const Came* came, int64_t place, const Rules& rules, Out& out) {
        const auto changed = history.add_labels(action.item, action.time_ms + rules.window_ms, labels_of(action, rules),
                                                rules.history_items);
        if (changed.value_or(false)) {
            history_changed = true;
            updated_ms = std::max(updated_ms, action.time_ms);
        }
        const Why why = changed.has_value() ? HAD_CLOSED : NO_IMPRESSION;
        came ? out.refuse(why, action.item, *came) : out.refuse(ACTIONS, why, action.item, place);
    }

    // Give a new exposure the actions that came before it.
    void take_waiting(Exposure& exposure, int64_t window_ms) {
        auto* actions = waiting_for(exposure.request, exposure.item);
        if (!actions) return;
        sift(*actions, [&](const Waiting& one) {
            const int64_t apart_ms = one.action.time_ms - exposure.time_ms;
            if (apart_ms <= -window_ms || apart_ms >= window_ms) return false;
            exposure.take(one.action);
            return true;
        });
        if (actions->empty()) forget_empty();
    }

    void reschedule(const Rules& rules) { due_ms = next_due_ms(open.first_ms(), rules); }

    // All but the newest `history_items` of the history, as `stream.joiner.state.pack_user`.
    void pack(Bytes& out, const Rules& rules) const {
        const int64_t beyond = std::max<int64_t>(0, history.size() - rules.history_items);
        out.number(VERSION);
        for (int64_t count : {int64_t(open.size()), waiting_count(), int64_t(session.size()), beyond})
            out.number(static_cast<uint32_t>(count));
        for (const auto& exposure : open) exposure.pack(out);
        for (const auto& exposure : session) exposure.pack(out);
        out.raw(history.items.data(), 8 * beyond);
        out.raw(history.times_ms.data(), 8 * beyond);
        out.raw(history.labels.data(), beyond);
        for (const auto& about : waiting)
            for (const auto& one : about.actions) one.pack(out);
    }

    void write_history(Bytes& out, const Rules& rules) const {
        out.avro_long(id);
        history.write(out, std::max<int64_t>(0, history.size() - rules.history_items), history.size());
        out.avro_long(updated_ms);
    }

private:
    template <class Taken>
    void sift(std::vector<Waiting>& actions, Taken taken) {
        size_t kept = 0;
        for (size_t index = 0; index < actions.size(); ++index) {
            const int64_t places = actions[index].places();
            if (taken(actions[index])) {
                waiting_places -= places;
                continue;
            }
            if (kept != index) actions[kept] = std::move(actions[index]);
            ++kept;
        }
        actions.erase(actions.begin() + kept, actions.end());
    }
    void forget_empty() {
        waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [](auto& about) { return about.actions.empty(); }),
                      waiting.end());
    }
    // Take out the waiting actions with times up to `until_ms`, in order of time.
    std::vector<Waiting> take_overdue(int64_t until_ms) {
        std::vector<Waiting> overdue;
        if (waiting.empty()) return overdue;
        for (auto& about : waiting)
            sift(about.actions, [&](Waiting& one) {
                if (one.action.time_ms > until_ms) return false;
                overdue.push_back(std::move(one));
                return true;
            });
        forget_empty();
        std::stable_sort(overdue.begin(), overdue.end(),
                         [](auto& one, auto& other) { return one.order() < other.order(); });
        return overdue;
    }
    // Whether a late exposure is too old for the session in the making: by a gap, or by other exposures since.
    bool stands_alone(const Exposure& late, const Rules& rules) const {
        if (!session.empty()) {
            const int64_t first_ms = session.front().time_ms;
            if (late.time_ms >= first_ms) return false;
            if (late.time_ms <= first_ms - rules.session_gap_ms) return true;
        }
        const int64_t before = history.size() - static_cast<int64_t>(session.size()) - 1;
        return before >= 0 && history.times_ms[before] > late.time_ms;
    }
    void add_alone(const Exposure& exposure, const Rules& rules, Out& out) {
        const int64_t index = remember(exposure, rules, static_cast<int64_t>(session.size()), true);
        write_session(&exposure, 1, index, GAP, rules, out);
    }
    // Put it into the history; its index there.
    int64_t remember(const Exposure& exposure, const Rules& rules, int64_t before_last, bool by_time) {
        const int64_t keep = rules.history_items + static_cast<int64_t>(session.size());
        const Byte labels = exposure.labels(rules);
        int64_t index;
        if (before_last || by_time) {
            index = history.insert(exposure.item, exposure.time_ms, labels, before_last, by_time);
            index -= history.keep(keep);
        } else {
            index = history.append(exposure.item, exposure.time_ms, labels, keep);
        }
        state_changed = history_changed = true;
        updated_ms = std::max(updated_ms, exposure.time_ms);
        return index;
    }
    // Close the session where its gap has passed by `now_ms` and no exposure before `next_ms` will come.
    void close_gap(int64_t now_ms, int64_t next_ms, const Rules& rules, Out& out) {
        if (session.empty()) return;
        const int64_t gap_ms = session.back().time_ms + rules.session_gap_ms;
        if (gap_ms <= now_ms && gap_ms <= next_ms) close_session(GAP, rules, out);
    }
    int64_t next_due_ms(int64_t first_open_ms, const Rules& rules) const {
        int64_t due = first_open_ms == NEVER_MS ? NEVER_MS : first_open_ms + rules.window_ms;
        for (const auto& about : waiting)
            for (const auto& one : about.actions) due = std::min(due, one.action.time_ms + rules.window_ms);
        if (!session.empty()) {
            const int64_t gap_ms = session.back().time_ms + rules.session_gap_ms;
            if (gap_ms <= first_open_ms) due = std::min(due, gap_ms);
        }
        return due;
    }
    // A Session record: `stream.joiner.sessions`, in Avro. Its history ends before index `stop`.
    void write_session(const Exposure* exposures, size_t count, int64_t stop, ClosedBy closed_by, const Rules& rules,
                       Out& out) const {
        const Exposure &first = exposures[0], &last = exposures[count - 1];
        auto& to = out.sessions.bytes;
        stop = std::max<int64_t>(0, stop);
        out.sessions.begin();
        to.avro_long(session_id(first));
        to.avro_long(id);
        history.write(to, std::max<int64_t>(0, stop - rules.history_items), stop);
        to.avro_long(static_cast<int64_t>(count));
        int64_t total_watch_ms = 0, watched = 0;
        bool interaction = false;
        for (size_t index = 0; index < count; ++index) {
            const auto& one = exposures[index];
            const Byte labels = one.labels(rules);
            for (int64_t value : {one.item, one.request, one.position, one.time_ms, one.watch_ms, one.duration_ms})
                to.avro_long(value);
            to.avro_long(labels);
            to.avro_optional(one.has_version, one.version);
            to.avro_long(one.produced_ms);
            total_watch_ms += one.watch_ms;
            watched += (labels & VIEWED) != 0;
            interaction |= (labels & INTERACTION) != 0;
        }
        to.avro_long(0);  // the array ends
        to.avro_long(first.time_ms);
        to.avro_long(last.time_ms);
        to.avro_long(total_watch_ms);
        to.number(static_cast<Byte>(is_high_quality(watched, total_watch_ms, interaction, rules)));
        to.avro_long(closed_by);
        to.avro_optional(first.has_version, first.version);
        out.sessions.end(id, std::max<int64_t>(1, last.time_ms));
        ++out.closed[closed_by];
    }
    int64_t session_id(const Exposure& first) const {
        const int64_t identity[4] = {id, first.request, first.item, first.time_ms};
        const auto digest = blake2b_8(reinterpret_cast<const Byte*>(identity), sizeof identity, PERSON);
        return static_cast<int64_t>(digest & INT64_MAX);
    }
    static bool is_high_quality(int64_t watched, int64_t total_watch_ms, bool interaction, const Rules& rules) {
        int criteria = 0, met = 0;
        if (rules.min_watched) ++criteria, met += watched >= rules.min_watched;
        if (rules.min_total_watch_ms) ++criteria, met += total_watch_ms >= rules.min_total_watch_ms;
        if (rules.need_interaction) ++criteria, met += interaction;
        return rules.need_all || !criteria ? met == criteria : met > 0;
    }
    static constexpr char PERSON[8] = {'s', 'e', 's', 's', 'i', 'o', 'n', 0};
};

}  // namespace onerec
