// Bytes out: Avro's varints, the changelog's little-endian numbers, and the hash that names a session.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace onerec {

using Byte = uint8_t;

class Bytes {
public:
    void raw(const void* from, size_t size) {
        const auto* begin = static_cast<const Byte*>(from);
        data.insert(data.end(), begin, begin + size);
    }
    template <class Number>
    void number(Number value) {
        raw(&value, sizeof value);  // little-endian: see binding.py
    }
    void avro_long(int64_t value) {
        auto rest = (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
        for (; rest >= 0x80; rest >>= 7) data.push_back(static_cast<Byte>(rest | 0x80));
        data.push_back(static_cast<Byte>(rest));
    }
    void avro_bytes(const void* from, size_t size) {
        avro_long(static_cast<int64_t>(size));
        raw(from, size);
    }
    void avro_optional(bool there, int64_t value) {
        avro_long(there);
        if (there) avro_long(value);
    }

    std::vector<Byte> data;
};

// BLAKE2b (RFC 7693) of one block at most, 8 bytes long, without a key, personalised.
inline uint64_t blake2b_8(const Byte* message, size_t size, const char (&person)[8]) {
    static const uint64_t iv[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                   0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
    static const Byte sigma[10][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};
    uint64_t personal = 0, block[16] = {}, h[8], v[16];
    std::memcpy(&personal, person, sizeof person);
    std::memcpy(block, message, size);
    std::memcpy(h, iv, sizeof h);
    h[0] ^= 0x01010000 ^ 8;
    h[6] ^= personal;
    for (int i = 0; i < 8; ++i) v[i] = h[i], v[i + 8] = iv[i];
    v[12] ^= size;
    v[14] = ~v[14];
    const auto turned = [](uint64_t value, int by) { return (value >> by) | (value << (64 - by)); };
    const auto mix = [&](int a, int b, int c, int d, uint64_t x, uint64_t y) {
        v[a] += v[b] + x, v[d] = turned(v[d] ^ v[a], 32), v[c] += v[d], v[b] = turned(v[b] ^ v[c], 24);
        v[a] += v[b] + y, v[d] = turned(v[d] ^ v[a], 16), v[c] += v[d], v[b] = turned(v[b] ^ v[c], 63);
    };
    for (int round = 0; round < 12; ++round) {
        const Byte* s = sigma[round % 10];
        for (int i = 0; i < 4; ++i) mix(i, i + 4, i + 8, i + 12, block[s[2 * i]], block[s[2 * i + 1]]);
        for (int i = 0; i < 4; ++i)
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, block[s[8 + 2 * i]], block[s[9 + 2 * i]]);
    }
    return h[0] ^ v[0] ^ v[8];
}

}  // namespace onerec
