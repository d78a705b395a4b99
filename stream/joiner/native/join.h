// The join of one partition: `stream.joiner.join`, which says what is done when; this does the same.
#pragma once
#include <functional>
#include <memory>
#include <queue>
#include <unordered_map>

#include "user.h"

namespace onerec {

constexpr int64_t BEGINNING_MS = INT64_MIN;

// Keys and values of a batch of actions, one after the other, and where they stood. A key of size -1 is none.
struct Batch {
    const Byte* keys;
    const int64_t* key_sizes;
    const Byte* values;
    const int64_t* value_sizes;
    const int64_t* offsets;
    const int64_t* timestamps_ms;
};

class Join {
public:
    explicit Join(const Rules& rules) : rules_(rules) {}

    // Users of these rows who are new here; they are here then. How many, their ids in `ids`.
    int64_t welcome(const Row* rows, const Byte* good, int64_t count, int64_t* ids) {
        int64_t found = 0;
        for (int64_t place = 0; place < count; ++place)
            if (good[place] && !find(rows[place].user)) {
                make(rows[place].user);
                ids[found++] = rows[place].user;
            }
        return found;
    }
    User& make(int64_t id) {
        auto& user = users_[id];
        user = std::make_unique<User>();
        user->id = id;
        user->number = next_number_++;
        return *user;
    }
    User* find(int64_t id) {
        const auto found = users_.find(id);
        return found == users_.end() ? nullptr : found->second.get();
    }

    void impression(const Row& row, int64_t place) {
        ++out.events;
        User& user = touch(row.user);
        const auto same = [&](const Exposure& other) { return other.named(row.request, row.item); };
        if (user.open.find(row.request, row.item) ||
            std::any_of(user.session.begin(), user.session.end(), same)) {
            ++out.duplicates;
            return;
        }
        Exposure exposure = Exposure::of(row);
        const int64_t due_ms = row.time_ms + rules_.window_ms;
        if (due_ms <= watermark_ms) {
            late_impression(user, exposure, place);
        } else if (static_cast<int64_t>(user.open.size()) >= rules_.most_open) {
            out.refuse(IMPRESSIONS, TOO_MANY_OPEN, row.item, place);
        } else {
            if (!user.waiting.empty()) user.take_waiting(exposure, rules_.window_ms);
            user.open.push(exposure);
            user.state_changed = true;
            if (due_ms < user.due_ms) due(user, due_ms);
        }
    }

    // `key`, `value` and where it stood are kept where the action has to wait.
    void action(const Row& row, int64_t place, int64_t offset, int64_t timestamp_ms, const Byte* key, int64_t key_size,
                const Byte* value, int64_t value_size) {
        ++out.events;
        User& user = touch(row.user);
        Exposure* exposure = user.open.find(row.request, row.item);
        if (exposure && row.time_ms - exposure->time_ms > -rules_.window_ms &&
            row.time_ms - exposure->time_ms < rules_.window_ms) {
            if (exposure->take(row))
                user.state_changed = true;
            else
                ++out.duplicates;
            return;
        }
        if (row.time_ms + rules_.window_ms <= watermark_ms) {
            catch_up(user);
            user.resolve(row, nullptr, place, rules_, out);
            return;
        }
        if (const auto* others = user.waiting_for(row.request, row.item))
            for (const auto& other : *others)
                if (other.action == row) {
                    ++out.duplicates;
                    return;
                }
        Came came{offset, timestamp_ms, key_size >= 0, {}, {value, value + value_size}};
        if (key_size > 0) came.key.assign(key, key + key_size);
        Waiting waiting{row, std::move(came)};
        if (user.waiting_places + waiting.places() > rules_.most_open) {
            out.refuse(ACTIONS, TOO_MANY_OPEN, row.item, place);
            return;
        }
        user.wait(std::move(waiting));
        user.state_changed = true;
        const int64_t due_ms = row.time_ms + rules_.window_ms;
        if (due_ms < user.due_ms) due(user, due_ms);
    }

    // No event before `to_ms` is waited for any more: work off what falls due, of `most` users at a time.
    void advance(int64_t to_ms, int64_t most) {
        watermark_ms = std::max(watermark_ms, to_ms);
        while (is_behind() && most > 0) {
            const auto [due_ms, id] = timers_.top();
            timers_.pop();
            User* user = find(id);
            if (user && user->due_ms == due_ms) {
                work_off(*user);
                --most;
            }
        }
    }
    bool is_behind() const { return !timers_.empty() && timers_.top().first <= watermark_ms; }

    // The stream stands still: publish sessions in the making too, `most` at a time; whether that was all.
    bool close_idle(int64_t most) {
        std::vector<User*> standing;
        for (auto& [id, user] : users_)
            if (!user->session.empty()) standing.push_back(user.get());
        std::sort(standing.begin(), standing.end(), [](auto* one, auto* other) { return one->number < other->number; });
        const auto all = static_cast<int64_t>(standing.size());
        for (int64_t index = 0; index < std::min(all, most); ++index) {
            standing[index]->close_session(IDLE, rules_, out);
            touch(*standing[index]);
        }
        return all <= most;
    }

    // Write what has changed of the users since the last call; once it is stored, `forget`.
    void write() {
        for (User* user : touched_) {
            user->touched = false;
            write(*user);
        }
        written_.insert(written_.end(), touched_.begin(), touched_.end());
        touched_.clear();
    }

    // What was written is stored: count what is open, and drop users of whom only the history is left.
    void forget() {
        for (User* user : written_) {
            count(*user);
            if (user->is_idle() && !user->touched) dropped_.push_back(user->id);
        }
        written_.clear();
        for (int64_t id : dropped_) users_.erase(id);
        dropped_.clear();
    }

    void restored(User& user) {
        user.reschedule(rules_);
        set_timer(user);
        count(user);
    }
    int64_t touched() const { return static_cast<int64_t>(touched_.size()); }

    Out out;
    int64_t watermark_ms = BEGINNING_MS;
    int64_t open[3] = {};  // impressions, waiting actions, sessions as of the last commit

private:
    User& touch(int64_t id) {
        User* user = find(id);
        return touch(user ? *user : make(id));
    }
    User& touch(User& user) {
        if (!user.touched) {
            user.touched = true;
            touched_.push_back(&user);
        }
        return user;
    }
    void due(User& user, int64_t due_ms) {
        user.due_ms = due_ms;
        timers_.emplace(due_ms, user.id);
    }
    void set_timer(const User& user) {
        if (user.due_ms != NEVER_MS) timers_.emplace(user.due_ms, user.id);
    }
    void work_off(User& user) {
        user.work_off(watermark_ms, rules_, out);
        touch(user);
        set_timer(user);
    }
    // Before something late is joined, all that is due comes first.
    void catch_up(User& user) {
        if (user.due_ms <= watermark_ms) work_off(user);
    }
    // Its window has passed already: join it at once with what is there.
    void late_impression(User& user, Exposure& exposure, int64_t place) {
        catch_up(user);
        const auto& history = user.history;
        if (history.holds(exposure.item, exposure.time_ms)) {
            ++out.duplicates;
            return;
        }
        if (history.size() >= rules_.history_items && exposure.time_ms <= history.times_ms[0]) {
            out.refuse(IMPRESSIONS, TOO_OLD, exposure.item, place);
            return;
        }
        ++out.late_impressions;
        user.take_waiting(exposure, rules_.window_ms);
        user.add(exposure, rules_, out, true);
        const int64_t due_ms = user.due_ms;
        user.reschedule(rules_);
        if (user.due_ms != due_ms) set_timer(user);
    }
    void write(User& user) {
        if (user.state_changed) {
            user.state_changed = false;
            const bool idle = user.is_idle();
            if (!idle) {
                out.changelog.begin();
                user.pack(out.changelog.bytes, rules_);
                out.changelog.end(user.id, 0);
            } else if (user.stored) {
                out.changelog.tombstone(user.id);
            }
            user.stored = !idle;
        }
        if (user.history_changed) {
            user.history_changed = false;
            out.histories.begin();
            user.write_history(out.histories.bytes, rules_);
            out.histories.end(user.id, std::max<int64_t>(1, user.updated_ms));
        }
    }
    void count(User& user) {
        const int64_t now[3] = {static_cast<int64_t>(user.open.size()), user.waiting_count(), !user.session.empty()};
        for (int which = 0; which < 3; ++which) {
            open[which] += now[which] - user.counted[which];
            user.counted[which] = now[which];
        }
    }

    Rules rules_;
    std::unordered_map<int64_t, std::unique_ptr<User>> users_;
    std::vector<User*> touched_, written_;
    std::vector<int64_t> dropped_;
    using Timer = std::pair<int64_t, int64_t>;
    std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
    int64_t next_number_ = 0;
};

}  // namespace onerec
