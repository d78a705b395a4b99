// Whole sessions of some requests: steps of the decoder and of the search by turns, until the results are written.
//
// What `Engine` does with `Beams` in torch, see there. A return to the caller after each step would cost a request
// more than its search does, and a batch's threads would wait for each other.
#pragma once
#include <numeric>

#include "search.h"
#include "step.h"

namespace onerec {

struct Head {  // of a level
  const Element* packed;  // [d, codes]
  int64_t columns;        // whole panels
};

struct Plan {  // what is looked for, for B requests
  int64_t slots;            // items of a session
  int64_t most;             // beams of a request at any time
  const int64_t* begin;     // [slots] beams of a request before a slot's first code
  const int64_t* widths;    // [slots, levels] and after each code
  const int64_t* own;       // [B, slots, levels] how many of these each request keeps; null: all
  const int64_t* binds;     // [slots, levels] whether any child may be closed
  const int64_t* decided;   // [levels] whether it pays to look for rows whose code the trie decides
  const int64_t* branches;  // [levels] children of a node at most
  const int64_t* supply;    // [B] items that each request may take
  const Limits* limits;     // [levels]
  const Head* heads;        // [levels]
};

struct Sessions {  // best first; leaf -1 and -inf where there is none
  int64_t* items;          // [B, W, slots], W beams after the last code
  float* log_probs;        // [B, W]
  float* item_log_probs;   // [B, W, slots]
  int64_t* first;          // [B, W0], W0 beams after the first slot
  float* first_log_probs;  // [B, W0]
  int64_t* decoded;        // [B] tokens that were fed to the decoder for each request
};

class Generation {
 public:
  // The requests [first, first + requests) of a batch, whose rows so many threads share.
  Generation(const Model& model, const Tree& tree, const State& state, const Plan& plan, const Sessions& sessions,
             long first, long requests, long threads)
      : model_(model), tree_(tree), plan_(plan), to_(sessions), state_(state), first_(first), requests_(requests),
        levels_(tree.levels), threads_(threads) {
    state_.max_rows = requests * plan.most;
    state_.lengths += first;
    state_.memory += first;
    state_.cache += first * plan.most * state.max_tokens * model.decoder_blocks * 2 * model.width;
    for (Beams* beams : {&now_, &next_}) *beams = room(state_.max_rows);
    for (auto* rows : {&live_, &asked_}) *rows = arena.take<int32_t>(state_.max_rows);
    for (auto* ends : {&live_ends_, &asked_ends_}) *ends = arena.take<int64_t>(requests + 1);
    fed_codes_ = arena.take<int64_t>(2 * state_.max_rows);
    order_ = arena.take<int64_t>(plan.most);
    long columns = 0;
    for (long level = 0; level < levels_; ++level) columns = std::max<long>(columns, plan.heads[level].columns);
    logits_ = arena.take<float>(state_.max_rows * columns);
  }

  void run() {
    for (long row = 0; row < requests_; ++row) {
      to_.decoded[first_ + row] = 0;
      now_.scores[row] = 0.0f;
      now_.nodes[row] = now_.codes[row] = 0;  // the root, and BOS
      now_.parents[row] = row;
    }
    for (long slot = 0; slot < plan_.slots; ++slot) {
      if (slot > 0) narrow(slot);
      for (long level = 0; level < levels_; ++level) {
        feed(slot, level);
        take_best(slot, level);
      }
      finish(slot);
    }
  }

 private:
  const Scope scope_;  // of all rooms

  struct Beams {  // rows, request by request, all requests with as many; those worth -inf are dead
    float* scores;
    int64_t *nodes, *codes, *parents;  // parents: rows of the step before
    int64_t* held;                     // [rows, slots] leaves
    float* totals;                     // [rows, slots] scores after each of them
    int32_t* past;                     // [rows, tokens] rows of the cache
  };

  Beams room(long rows) const {
    return {arena.take<float>(rows),
            arena.take<int64_t>(rows),
            arena.take<int64_t>(rows),
            arena.take<int64_t>(rows),
            arena.take<int64_t>(rows * plan_.slots),
            arena.take<float>(rows * plan_.slots),
            arena.take<int32_t>(rows * state_.max_tokens)};
  }

  // The newest code of each beam to the decoder; after an item's last code the next item's BOS goes in with it.
  void feed(long slot, long level) {
    const long fed = slot > 0 && level == 0 ? 2 : 1, rows = requests_ * each_;
    for (long row = 0; row < rows; ++row) {
      fed_codes_[row * fed] = now_.codes[row];
      if (fed == 2) fed_codes_[row * fed + 1] = 0;
    }
    const Head& head = plan_.heads[level];
    choose(level, slot + 1 == plan_.slots && level + 1 == levels_, head.columns);
    Step step{};
    step.fed = fed;
    step.start = tokens_;
    step.live = {live_, live_ends_};
    step.asked = {asked_, asked_ends_};
    step.codes = fed_codes_;
    step.rows_each = each_;
    step.past = now_.past;
    step.parents = now_.parents;
    step.ancestors = next_.past;
    step.head = head.packed;
    step.head_columns = head.columns;
    step.logits = logits_;
    advance(model_, state_, step, requests_, threads_);
    for (long request = 0; request < requests_; ++request)
      to_.decoded[first_ + request] += fed * step.live.count(request, 1);
    std::swap(now_.past, next_.past);
    tokens_ += fed;
  }

  // Which rows are fed and of which logits are asked for: of dead ones neither, of those whose code the trie decides
  // no logits. Nothing follows the `last` code, so they need not be fed then. What is not asked for is 0.
  void choose(long level, bool last, long columns) {
    const Integers& starts = tree_.starts[level];
    long live = 0, asked = 0;
    for (long row = 0; row < requests_ * each_; ++row) {
      if (row % each_ == 0) {
        live_ends_[row / each_] = live;
        asked_ends_[row / each_] = asked;
      }
      const bool lives = now_.scores[row] > -INFINITY;
      const bool open = !plan_.decided[level] || starts[now_.nodes[row] + 1] - starts[now_.nodes[row]] > 1;
      if (!lives) continue;
      if (open || !last) live_[live++] = static_cast<int32_t>(row);
      if (open)
        asked_[asked++] = static_cast<int32_t>(row);
      else
        std::fill_n(logits_ + row * columns, columns, 0.0f);
    }
    live_ends_[requests_] = live;
    asked_ends_[requests_] = asked;
  }

  void take_best(long slot, long level) {
    const long at = slot * levels_ + level, width = plan_.widths[at], slots = plan_.slots;
    Search step{};
    step.level = level;
    step.beams = each_;
    step.held = slot;
    step.width = width;
    step.binds = plan_.binds[at];
    step.first = first_;
    step.limits = plan_.limits + level;
    step.nodes = now_.nodes;
    step.scores = now_.scores;
    step.leaves = now_.held;
    step.room = slots;
    step.logits = logits_;
    step.logits_width = plan_.heads[level].columns;
    step.own_stride = slots * levels_;
    if (plan_.own != nullptr) step.own = plan_.own + first_ * step.own_stride + at;
    step.parents = next_.parents;
    step.taken = next_.codes;
    step.reached = next_.nodes;
    step.worth = next_.scores;
    for (long request = 0; request < requests_; ++request) {
      const Scope scope;
      search(tree_, step, request, plan_.branches[level], arena);
    }
    for (long row = 0; row < requests_ * width; ++row) hold_as(next_.parents[row], row, slot);
    follow(width);
  }

  // The row `to` of the next beams holds what `from` holds, `items` of them.
  void hold_as(long from, long to, long items) {
    std::copy_n(now_.held + from * plan_.slots, items, next_.held + to * plan_.slots);
    std::copy_n(now_.totals + from * plan_.slots, items, next_.totals + to * plan_.slots);
  }

  // The next beams are those that live now; the past is the decoder's to exchange.
  void follow(long each) {
    std::swap(now_, next_);
    std::swap(now_.past, next_.past);
    each_ = each;
  }

  // The nodes reached are leaves: hold them, and begin at the root again.
  void finish(long slot) {
    for (long row = 0; row < requests_ * each_; ++row) {
      now_.held[row * plan_.slots + slot] = now_.nodes[row];
      now_.totals[row * plan_.slots + slot] = now_.scores[row];
      now_.nodes[row] = 0;
    }
    for (long request = 0; request < requests_; ++request) {
      sort(request);
      if (slot == 0) write_first(request);
      const long supply = plan_.supply[first_ + request];  // fewer items than slots: done after as many
      if (slot + 1 == (supply > 0 ? std::min<long>(supply, plan_.slots) : plan_.slots)) write(request, slot + 1);
    }
  }

  // `order_` is the request's rows, those that are worth most first.
  void sort(long request) {
    std::iota(order_, order_ + each_, request * each_);
    std::stable_sort(order_, order_ + each_, [&](int64_t a, int64_t b) { return now_.scores[a] > now_.scores[b]; });
  }

  // Keeps the best beams of each request, before `slot`.
  void narrow(long slot) {
    const long width = plan_.begin[slot];
    if (width == each_ && plan_.own == nullptr) return;
    for (long request = 0; request < requests_; ++request) {
      sort(request);
      if (plan_.own != nullptr) {
        const int64_t* own = plan_.own + ((first_ + request) * plan_.slots + slot) * levels_;
        for (long place = *std::max_element(own, own + levels_); place < each_; ++place)
          now_.scores[order_[place]] = -INFINITY;
      }
      for (long place = 0; place < width; ++place) move(order_[place], request * width + place, slot);
    }
    follow(width);
  }

  void move(long from, long to, long items) {
    next_.scores[to] = now_.scores[from];
    next_.nodes[to] = now_.nodes[from];
    next_.codes[to] = now_.codes[from];
    next_.parents[to] = now_.parents[from];
    hold_as(from, to, items);
  }

  void write_first(long request) {
    const long at = (first_ + request) * each_;
    for (long place = 0; place < each_; ++place) {
      const long row = order_[place];
      to_.first_log_probs[at + place] = now_.scores[row];
      to_.first[at + place] = now_.scores[row] > -INFINITY ? now_.held[row * plan_.slots] : -1;
    }
  }

  // A request's sessions as they are with `items` items.
  void write(long request, long items) {
    const long slots = plan_.slots, width = plan_.widths[slots * levels_ - 1];
    for (long place = 0; place < width; ++place) {
      const long row = place < each_ ? order_[place] : 0, at = (first_ + request) * width + place;
      const bool there = place < each_ && now_.scores[row] > -INFINITY;
      to_.log_probs[at] = there ? now_.scores[row] : -INFINITY;
      for (long item = 0; item < slots; ++item) {
        const bool holds = there && item < items;
        const float* total = now_.totals + row * slots + item;
        to_.items[at * slots + item] = holds ? now_.held[row * slots + item] : -1;
        to_.item_log_probs[at * slots + item] = holds ? *total - (item > 0 ? total[-1] : 0.0f) : 0.0f;
      }
    }
  }

  const Model& model_;
  const Tree& tree_;
  const Plan& plan_;
  const Sessions& to_;
  State state_;
  const long first_, requests_, levels_, threads_;
  long each_ = 1, tokens_ = 0;  // beams of a request; tokens of its past
  Beams now_, next_;
  int32_t *live_, *asked_;
  int64_t *live_ends_, *asked_ends_;
  int64_t *fed_codes_, *order_;
  float* logits_;
};

}  // namespace onerec
