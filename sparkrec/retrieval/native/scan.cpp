// The scan of the similarity join: every user's k best items by inner product, exact, without a score in memory.
//
// Vectors are rounded to bytes or to bfloat16 and multiplied by whatever the CPU has for that. |low − exact| is bounded
// for each user and block of items (`error_bound`), so an item whose low score cannot reach the k-th best is dropped,
// and the few that remain are scored again in double precision. The order is total (score downwards, item upwards) and
// comes from the exact scores alone: the result is the same to the bit for every unit, block, shard and partition.
//
// search.inc is the algorithm, looks.inc its first look at the items; they are compiled once for each instruction set,
// in a namespace of its own, on top of a unit_*.inc with what differs. What the namespaces share (the standard library,
// the structures below) is compiled for any CPU of the kind.
//
// Loaded by kernel.py through ctypes: plain C functions, no Python inside, the interpreter lock is free meanwhile.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <limits>
#include <new>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int LANES = 16;          // users in one vector
constexpr int GROUP = 2 * LANES;   // users in one pass over a block of items
constexpr int ROWS = 32;           // items in one tile of scores
constexpr int STATE = 8 << 20;     // bytes of candidates that are held at a time
constexpr int SAMPLE = 16;         // one tile in so many is scored first, to guess where the threshold will end
constexpr int TRIED = 256;         // users on whom words are tried, and bytes
constexpr int WIDEST = 1 << 16;    // vectors of which a sum of products of bytes fits 32 bits
constexpr int ZERO = 128;          // an item's byte that stands for zero
constexpr float INF = std::numeric_limits<float>::infinity();

// ‖v‖, ‖v'‖ and ‖v − v'‖ of a vector, v' being v rounded; of a block of items, the largest.
struct Sizes {
    double norm, rounded, residual;
};

// The packed items of one process; kernel.py fills it in the same order.
struct Catalogue {
    const uint16_t* words;    // [rows, width] bfloat16, longest vectors first; rows of zeros at the end
    const uint8_t* bytes;     // [rows, width] the same in the block's steps from ZERO; null: there are none
    const int32_t* order;     // [rows] item of each row; -1 for the rows of zeros
    const float* sizes;       // [6, blocks] Sizes of the words, then of the bytes
    const float* steps;       // [blocks] of the bytes
    const float* vectors;     // [items, depth] as they came
    const int64_t* starts;    // [blocks + 1] rows at which the blocks begin, whole tiles
    int64_t rows, items, blocks;
    int32_t width, depth;     // width is depth rounded up to a multiple of 32

    Sizes largest(int64_t block, int first) const {
        const float* found = sizes + first * blocks + block;
        return {found[0], found[blocks], found[2 * blocks]};
    }
};

enum { MEASURED, WORDS_ONLY, BYTES_ONLY };

// What one call asks for; kernel.py fills it in the same order. The last five may be null.
struct Request {
    const float* users;       // [n, depth]
    int64_t n;
    int32_t k, probes;        // probes: blocks in which to look for each user; 0: all, and then the result is exact
    int32_t look;             // of an exact search: MEASURED, or as it says
    int32_t proposals;        // with `proposed`: items to look at for each user
    const int64_t* indptr;    // [n + 1] with `excluded`: items that each user is not to be offered
    const int32_t* excluded;
    const uint8_t* allowed;   // [items] false: offered to none of these users
    const int32_t* nearest;   // [n, probes] blocks, the most promising first
    const int32_t* proposed;  // [n, proposals] distinct items, or -1: nothing else is looked at
};

// One user: what is excluded, and the candidates so far.
struct Query {
    int64_t row;              // of the request
    const float* vector;
    const int32_t *excluded, *excluded_end;
    float floor;              // an item that cannot score this much is no candidate
    float guess;              // what floor began with: checked at the end
    int count, bounded, checked;
    float *lower, *upper;     // [capacity] bounds of the exact score; `lower` holds the low score until `bounded`
    int32_t* item;            // [capacity] item; the packed row until `bounded`
};

// ‖u − u'‖‖v‖ + ‖u'‖‖v − v'‖ for the rounding of both vectors (Cauchy-Schwarz), then sums of `width` terms, each of
// at most two operations in float32 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., (3.5); sums of
// bytes are exact, and round three times when they become a score), the rounding of the exact score, and what underflows: products of words, or the step of
// products of bytes, of which a score may have width · 2¹⁴. Holds for every item of the block.
float error_bound(const Sizes& user, const Sizes& items, int width) {
    const double vectors = user.residual * items.norm + user.rounded * items.residual;
    const double sums =
        std::ldexp(width + 4.0, -23) * user.rounded * items.rounded + std::ldexp(user.norm * items.norm, -23);
    return std::nextafter(float((vectors + sums) * 1.000001 + std::ldexp(double(width), -111)), INF);
}

// The lowest low score with which an item can still reach `floor`.
float threshold(float floor, float bound) { return std::nextafter(floor - bound, -INF); }

// To the nearest bfloat16, ties to even; subnormal numbers to zero, as the units take them.
uint16_t bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7f800000u) == 0) return 0;
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float widened(uint16_t value) {
    const uint32_t bits = uint32_t(value) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// One vector and its rounded form, element by element.
template <class Rounded>
Sizes sizes_of(const float* vector, int depth, Rounded rounded) {
    double norm = 0, low_norm = 0, residual = 0;
    for (int i = 0; i < depth; ++i) {
        const double exact = vector[i], low = rounded(i);
        norm += exact * exact;
        low_norm += low * low;
        residual += (exact - low) * (exact - low);
    }
    return {std::sqrt(norm), std::sqrt(low_norm), std::sqrt(residual)};
}

Sizes to_words(const float* vector, int depth, int width, uint16_t* words) {
    for (int i = 0; i < depth; ++i) words[i] = bfloat16(vector[i]);
    std::fill(words + depth, words + width, uint16_t(0));
    return sizes_of(vector, depth, [&](int i) { return widened(words[i]); });
}

// The step by which 127 bytes reach the largest number; 0 where there is none to speak of.
float byte_step(const float* vector, int64_t numbers) {
    float largest = 0;
    for (int64_t i = 0; i < numbers; ++i) largest = std::max(largest, std::fabs(vector[i]));
    return largest < std::ldexp(1.0f, -100) ? 0.0f : std::nextafter(largest / 127.0f, INF);
}

// To the nearest step; bytes from `depth` on stay what they are.
Sizes to_bytes(const float* vector, int depth, float step, int8_t* bytes) {
    constexpr float WHOLE = 3 << 22;  // added and taken away, it leaves the nearest whole number
    const float inverse = step > 0 ? 1 / step : 0;
    for (int i = 0; i < depth; ++i) bytes[i] = int8_t(vector[i] * inverse + WHOLE - WHOLE);
    return sizes_of(vector, depth, [&](int i) { return double(step) * bytes[i]; });
}

// Of this thread, in seconds.
double processor_time() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

// A number whose order, upwards, is: score downwards, then item upwards.
uint64_t sort_key(float score, int32_t item) {
    uint32_t bits;
    std::memcpy(&bits, &score, 4);
    bits = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    return uint64_t(bits) << 32 | uint32_t(item);
}

float key_score(uint64_t key) {
    uint32_t bits = uint32_t(key >> 32);
    bits = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    float score;
    std::memcpy(&score, &bits, 4);
    return score;
}

void best_first(std::vector<uint64_t>& keys, size_t k) {
    if (keys.size() > k) {
        std::nth_element(keys.begin(), keys.begin() + k, keys.end());
        keys.resize(k);
    }
    std::sort(keys.begin(), keys.end());
}

// One call, and the memory that it works in.
struct Search {
    const Catalogue& items;
    const Request& request;
    int k, capacity;
    bool bytes = false;              // the first look is at bytes, not at words
    std::vector<uint64_t> hidden;    // a bit for each item that is not allowed
    std::vector<uint64_t> excluded;  // and for each that is excluded; zero between users
    std::vector<uint64_t> keys;
    std::vector<int32_t> chosen;
    std::vector<double> terms;

    Search(const Catalogue& catalogue, const Request& asked)
        : items(catalogue), request(asked), k(asked.k),
          capacity((std::max({4 * asked.k, 256, asked.proposals}) + 2 * LANES) / LANES * LANES), hidden(catalogue.items / 64 + 1),
          excluded(catalogue.items / 64 + 1), terms(catalogue.depth + 1) {
        for (int64_t item = 0; asked.allowed && item < catalogue.items; ++item)
            if (!asked.allowed[item]) hidden[item >> 6] |= uint64_t(1) << (item & 63);
    }
};

// Which users (their places in `queries`) look into each block: all of them, or who probes it.
struct Visits {
    std::vector<int64_t> start, user;
    size_t everyone;

    explicit Visits(size_t users) : everyone(users) {}
    Visits(const Search& search, const std::vector<Query>& queries, int first, int last) : everyone(0) {
        const Request& request = search.request;
        start.assign(search.items.blocks + 1, 0);
        const auto each = [&](auto act) {
            for (size_t i = 0; i < queries.size(); ++i)
                for (int probe = first; probe < last; ++probe)
                    act(request.nearest[queries[i].row * request.probes + probe], int64_t(i));
        };
        each([&](int32_t block, int64_t) { if (block >= 0) ++start[block + 1]; });
        for (size_t block = 1; block < start.size(); ++block) start[block] += start[block - 1];
        user.resize(start.back());
        std::vector<int64_t> next(start);
        each([&](int32_t block, int64_t i) { if (block >= 0) user[next[block]++] = i; });
    }
    size_t count(int64_t block) const { return start.empty() ? everyone : size_t(start[block + 1] - start[block]); }
    size_t place(int64_t block, size_t i) const { return start.empty() ? i : size_t(user[start[block] + i]); }
};

#define SPARKREC_VECTOR 16  // bytes
namespace generic {
#include "unit_plain.inc"
#include "search.inc"
}  // namespace generic

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#undef SPARKREC_VECTOR
#define SPARKREC_VECTOR 32
namespace avx2 {
#include "unit_plain.inc"
#include "search.inc"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#undef SPARKREC_VECTOR
#define SPARKREC_VECTOR 64
#define SPARKREC_BYTES
namespace avx512_vnni {
#include "unit_avx512.inc"
#include "search.inc"
}  // namespace avx512_vnni
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,prefer-vector-width=512")
#define SPARKREC_BF16
namespace avx512_bf16 {
#include "unit_avx512.inc"
#include "search.inc"
}  // namespace avx512_bf16
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,prefer-vector-width=512")
#undef SPARKREC_BYTES  // tiles multiply words faster than registers do bytes
namespace amx_bf16 {
#define SPARKREC_AMX
#include "unit_avx512.inc"
#include "search.inc"
}  // namespace amx_bf16
#pragma GCC pop_options

// Linux lets a process use the tile registers only after it has asked, once; it may be refused.
bool tiles_granted() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    static const bool granted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return granted;
}

bool has(unsigned leaf, unsigned subleaf, int reg, unsigned mask) {
    unsigned out[4];
    __asm__("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
    return (out[reg] & mask) == mask;
}
#endif

enum Unit { GENERIC, AVX2, AVX512_VNNI, AVX512_BF16, AMX_BF16 };

}  // namespace

extern "C" {

// A bit for each unit that this CPU, and the system on it, lets us use.
int32_t sparkrec_units() {
    int32_t units = 1 << GENERIC;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) units |= 1 << AVX2;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if ((units & 1 << AVX2) && wide && __builtin_cpu_supports("avx512vnni")) units |= 1 << AVX512_VNNI;
    if ((units & 1 << AVX512_VNNI) && has(7, 1, 0, 1u << 5)) {
        units |= 1 << AVX512_BF16;
        if (has(7, 0, 3, 1u << 22 | 1u << 24) && tiles_granted()) units |= 1 << AMX_BF16;
    }
#endif
    return units;
}

// The packed matrix from `order`, with the sizes and steps of its blocks. Without `bytes` it has none.
void sparkrec_pack(const float* vectors, int32_t depth, int32_t width, const int32_t* order, const int64_t* starts,
                   int64_t blocks, uint16_t* words, uint8_t* bytes, float* sizes, float* steps) {
    std::vector<int8_t> signs(depth);
    for (int64_t block = 0; block < blocks; ++block) {
        const auto grow = [&](int first, const Sizes& found) {
            const double each[] = {found.norm, found.rounded, found.residual};
            for (int i = 0; i < 3; ++i) {
                float& most = sizes[(first + i) * blocks + block];
                most = std::max(most, std::nextafter(float(each[i]), INF));
            }
        };
        for (int64_t row = starts[block]; bytes && row < starts[block + 1]; ++row)
            if (order[row] >= 0)
                steps[block] = std::max(steps[block], byte_step(vectors + int64_t(order[row]) * depth, depth));
        for (int64_t row = starts[block]; row < starts[block + 1]; ++row) {
            std::fill(words + row * width, words + (row + 1) * width, uint16_t(0));
            if (bytes) std::fill(bytes + row * width, bytes + (row + 1) * width, uint8_t(ZERO));
            if (order[row] < 0) continue;
            const float* vector = vectors + int64_t(order[row]) * depth;
            grow(0, to_words(vector, depth, width, words + row * width));
            if (!bytes) continue;
            grow(3, to_bytes(vector, depth, steps[block], signs.data()));
            for (int i = 0; i < depth; ++i) bytes[row * width + i] = uint8_t(signs[i] + ZERO);
        }
    }
}

// The exact score of each pair of a user and an item.
void sparkrec_exact(const float* users, const float* items, int32_t depth, const int64_t* rows, const int64_t* columns,
                    int64_t pairs, float* scores) {
    std::vector<double> terms(depth + 1);
    for (int64_t i = 0; i < pairs; ++i)
        scores[i] = generic::exact(users + rows[i] * depth, items + columns[i] * depth, depth, terms.data());
}

// The k best of each user. 0, or 1 where there was not enough memory.
int32_t sparkrec_search(int32_t unit, const Catalogue* items, const Request* request, int32_t* indices, float* scores) {
    try {
        switch (unit) {
#if defined(__x86_64__)
            case AMX_BF16: amx_bf16::search(*items, *request, indices, scores); break;
            case AVX512_BF16: avx512_bf16::search(*items, *request, indices, scores); break;
            case AVX512_VNNI: avx512_vnni::search(*items, *request, indices, scores); break;
            case AVX2: avx2::search(*items, *request, indices, scores); break;
#endif
            default: generic::search(*items, *request, indices, scores);
        }
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

}  // extern "C"
