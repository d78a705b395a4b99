// A step of the beam search: which codes the beams of a request take next. What `Beams` does in torch, see there.
//
// Children are looked at beam by beam, so nothing is padded to the widest branch, and of the constraints only what
// touches a beam's own children. Each request is searched for itself, in an order that does not depend on others.
#pragma once
#include <algorithm>

#include "attention.h"

namespace onerec {

struct Integers {  // as narrow as they can be; a mask's are of one byte
  const void* data;
  int64_t bytes;

  int64_t operator[](int64_t at) const {
    switch (bytes) {
      case 1: return static_cast<const uint8_t*>(data)[at];
      case 2: return static_cast<const int16_t*>(data)[at];
      case 4: return static_cast<const int32_t*>(data)[at];
      default: return static_cast<const int64_t*>(data)[at];
    }
  }
};

struct Tree {  // onerec.model.trie.Trie, with the bounds of CatalogueIndex
  int64_t levels;
  const Integers *starts, *codes;  // [levels]
  const Integers* parents;         // [levels - 1], of the edges of level 1 on
  const Integers* bounds;          // [levels - 1]
  Integers last_edges, leaf_of_edge;
};

struct Limits {  // what requests rule out below the edges of a level
  const int64_t* excluded;  // [count] ascending: request * stride + edge; null: nothing is excluded
  const int32_t* below;     // [count] leaves excluded below that edge
  int64_t count, stride;
  Integers allowed;         // [B or 1, edges] leaves that masks allow below an edge; null: all
  int64_t allowed_stride;   // 0 where requests are alike
};

struct Search {  // one step of requests, whose beams are rows, request by request
  int64_t level, beams, held, width;
  int64_t binds;             // whether any child may be closed
  int64_t first;             // the number of the first request, for `limits`
  const Limits* limits;      // of the level
  const int64_t* nodes;      // [rows]
  const float* scores;       // [rows], -inf for a dead beam
  const int64_t* leaves;     // [rows, room], of which `held` are there
  int64_t room;
  const float* logits;       // [rows, logits_width]
  int64_t logits_width;
  const int64_t* own;        // how many beams each request keeps, `own_stride` apart; null: width
  int64_t own_stride;
  int64_t *parents, *taken, *reached;  // [requests * width] rows, codes, nodes
  float* worth;                        // [requests * width], -inf where fewer children are open
};

struct Candidate {
  float score;
  int32_t row;
  int64_t edge;

  bool before(const Candidate& other) const { return row != other.row ? row < other.row : edge < other.edge; }
};

// The `most` best of the candidates that were offered, and some that are no longer among them. Of those that are worth
// the same the first is better: candidates come beam by beam, edge by edge.
class Best {
 public:
  static long room(long most) { return 2 * most; }

  Best(Candidate* space, long most) : found_(space), most_(most) {}

  // Most candidates are worth no more than `most` that came before: one comparison is all that they cost.
  void offer(const Candidate& candidate) {
    if (!(candidate.score > floor_)) return;
    found_[count_++] = candidate;
    if (count_ == room(most_)) settle();
  }

  // Throws away all but the best; how many these are.
  long settle() {
    if (count_ <= most_) return count_;
    std::nth_element(found_, found_ + most_ - 1, found_ + count_, [](const Candidate& a, const Candidate& b) {
      return a.score != b.score ? a.score > b.score : a.before(b);
    });
    floor_ = found_[most_ - 1].score;
    return count_ = most_;
  }

 private:
  Candidate* found_;
  long most_, count_ = 0;
  float floor_ = -INFINITY;
};

// Of the beam at `row` what is held or excluded below each child [first, end): counts, all 0 where nothing is.
inline bool count_taken(const Tree& tree, const Search& s, int64_t request, int64_t row, int64_t first, int64_t end,
                        int32_t* counts) {
  bool any = false;
  const auto take = [&](int64_t edge, int32_t leaves) {
    if (!any) std::fill(counts, counts + (end - first), 0);
    any = true;
    counts[edge - first] += leaves;
  };
  for (int64_t item = 0; item < s.held; ++item) {
    int64_t edge = tree.last_edges[s.leaves[row * s.room + item]];
    for (int64_t level = tree.levels - 1; level > s.level; --level) edge = tree.parents[level - 1][edge];
    if (edge >= first && edge < end) take(edge, 1);
  }
  const Limits& limits = *s.limits;
  if (limits.excluded != nullptr) {
    const int64_t base = (s.first + request) * limits.stride, *last = limits.excluded + limits.count;
    const int64_t* at = std::lower_bound(limits.excluded, last, base + first);
    for (; at != last && *at < base + end; ++at) take(*at - base, limits.below[at - limits.excluded]);
  }
  return any;
}

// Offers the open children of the beam at `row`, with what the session is worth that goes on so.
inline void offer_children(const Tree& tree, const Search& s, int64_t request, int64_t row, float* space,
                           int32_t* counts, Best& best) {
  const Integers &starts = tree.starts[s.level], &codes = tree.codes[s.level];
  const Limits& limits = *s.limits;
  const int64_t first = starts[s.nodes[row]], end = starts[s.nodes[row] + 1], count = end - first;
  const float *logits = s.logits + row * s.logits_width, score = s.scores[row];
  float most = -INFINITY;
  for (int64_t child = 0; child < count; ++child) {
    space[child] = logits[codes[first + child]];
    if (std::isnan(space[child])) return;  // no order holds what is no number
    most = std::max(most, space[child]);
  }
  float* shares = space + padded(count);
  std::copy(space, space + count, shares);
  const float all = most + std::log(exponentials(shares, count, padded(count)));
  const bool some = s.binds && count_taken(tree, s, request, row, first, end, counts);
  for (int64_t child = 0; child < count; ++child) {
    const int64_t edge = first + child, taken = some ? counts[child] : 0;
    if (limits.allowed.data != nullptr) {
      if (limits.allowed[(s.first + request) * limits.allowed_stride + edge] <= taken) continue;
    } else if (taken) {
      const bool is_leaf = s.level + 1 == tree.levels;
      if ((is_leaf ? 1 : tree.bounds[s.level][edge + 1] - tree.bounds[s.level][edge]) <= taken) continue;
    }
    best.offer({score + (count == 1 ? 0.0f : space[child] - all), static_cast<int32_t>(row), edge});
  }
}

// The best of a request's candidates, in the order of their beams.
inline void search(const Tree& tree, const Search& s, int64_t request, long widest, Arena& arena) {
  float* space = arena.take<float>(2 * padded(widest));
  int32_t* counts = arena.take<int32_t>(widest);
  const long most = s.own == nullptr ? s.width : std::min(s.own[request * s.own_stride], s.width);
  Candidate* found = arena.take<Candidate>(Best::room(most));
  Best best(found, most);
  for (int64_t row = request * s.beams; row < (request + 1) * s.beams; ++row)
    if (s.scores[row] > -INFINITY) offer_children(tree, s, request, row, space, counts, best);
  const long kept = best.settle();
  std::sort(found, found + kept, [](const Candidate& a, const Candidate& b) { return a.before(b); });
  const int64_t row = request * s.beams, any = tree.starts[s.level][s.nodes[row]];
  for (long i = 0; i < s.width; ++i) {
    const Candidate chosen = i < kept ? found[i] : Candidate{-INFINITY, static_cast<int32_t>(row), any};
    const int64_t at = request * s.width + i;
    s.parents[at] = chosen.row;
    s.taken[at] = tree.codes[s.level][chosen.edge];
    s.reached[at] = s.level + 1 == tree.levels ? tree.leaf_of_edge[chosen.edge] : chosen.edge;
    s.worth[at] = chosen.score;
  }
}

}  // namespace onerec
