// Which instructions multiply: AMX where the library is compiled for it, else vectors.
#pragma once
#ifdef __AMX_BF16__
#include "amx.h"
#else
#include "product.h"
#endif

namespace onerec {

#ifdef __AMX_BF16__
constexpr long MEMORY_ROWS = BLOCK;  // of queries that attend a memory at a time
#else
constexpr long MEMORY_ROWS = TILE_ROWS;
struct Tiles {};  // nothing to get ready
#endif

// Rows [m, k] times packed [k, n], n in whole panels; each row of results goes to `result`.
template <class By, class Result>
inline void product(const RowsOf<By>& rows, long m, const typename By::Element* packed, long k, long n,
                    const Result& result) {
#ifdef __AMX_BF16__
  product_by_tiles(rows, m, packed, k, n, result);
#else
  product_by_vectors(rows, m, packed, k, n, result);
#endif
}

}  // namespace onerec
