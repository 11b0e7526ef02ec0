// The scan of the similarity join: every user's k best items by inner product, exact, without a score in memory.
//
// Vectors are rounded to bfloat16 and multiplied by whatever the CPU has for that. |low − exact| is bounded for each
// user and block of items (`error_bound`), so an item whose low score cannot reach the k-th best is dropped, and the
// few that remain are scored again in double precision. The order is total (score downwards, item upwards) and comes
// from the exact scores alone: the result is the same to the bit for every unit, block, shard and partition.
//
// search.inc is the algorithm; it is compiled once for each instruction set, in a namespace of its own, on top of a
// unit_*.inc with what differs. What the namespaces share (the standard library, the structures below) is compiled for any
// CPU of the kind.
//
// Loaded by kernel.py through ctypes: plain C functions, no Python inside, the interpreter lock is free meanwhile.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
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
constexpr float INF = std::numeric_limits<float>::infinity();

// The packed items of one process; kernel.py fills it in the same order.
struct Catalogue {
    const uint16_t* packed;   // [rows, width] bfloat16, longest vectors first; rows of zeros at the end
    const int32_t* order;     // [rows] item of each row; -1 for the rows of zeros
    const float* norms;       // [blocks] the largest ‖v‖ in each block
    const float* rounded;     // [blocks] the largest ‖v'‖, v' being v in bfloat16
    const float* residuals;   // [blocks] the largest ‖v − v'‖
    const float* vectors;     // [items, depth] as they came
    const int64_t* starts;    // [blocks + 1] rows at which the blocks begin, whole tiles
    int64_t rows, items, blocks;
    int32_t width, depth;     // width is depth rounded up to a multiple of 32
};

// What one call asks for; kernel.py fills it in the same order. The last five may be null.
struct Request {
    const float* users;       // [n, depth]
    int64_t n;
    int32_t k, probes;        // probes: blocks in which to look for each user; 0: all, and then the result is exact
    int32_t proposals;        // with `proposed`: items to look at for each user
    const int64_t* indptr;    // [n + 1] with `excluded`: items that each user is not to be offered
    const int32_t* excluded;
    const uint8_t* allowed;   // [items] false: offered to none of these users
    const int32_t* nearest;   // [n, probes] blocks, the most promising first
    const int32_t* proposed;  // [n, proposals] distinct items, or -1: nothing else is looked at
};

// One user: the vector's sizes, what is excluded, and the candidates so far.
struct Query {
    int64_t row;              // of the request
    const float* vector;
    const int32_t *excluded, *excluded_end;
    double norm, rounded, residual;
    float floor;              // an item that cannot score this much is no candidate
    float guess;              // what floor began with: checked at the end
    int count, bounded, checked;
    float *lower, *upper;     // [capacity] bounds of the exact score; `lower` holds the low score until `bounded`
    int32_t* item;            // [capacity] item; the packed row until `bounded`
};

// ‖u − u'‖‖v‖ + ‖u'‖‖v − v'‖ for the rounding of both vectors (Cauchy-Schwarz), then sums of `width` terms, each of
// at most two operations in float32 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., (3.5)), the
// rounding of the exact score, and products that underflow. Holds for every item of the block.
float error_bound(const Query& user, double norm, double rounded, double residual, int width) {
    const double vectors = user.residual * norm + user.rounded * residual;
    const double sums = std::ldexp(width + 4.0, -23) * user.rounded * rounded + std::ldexp(user.norm * norm, -23);
    return std::nextafter(float((vectors + sums) * 1.000001 + std::ldexp(double(width), -124)), INF);
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

// One vector to bfloat16, with ‖v‖, ‖v'‖ and ‖v − v'‖.
void round_vector(const float* vector, int depth, int width, uint16_t* packed, double sizes[3]) {
    double norm = 0, rounded = 0, residual = 0;
    for (int i = 0; i < depth; ++i) {
        packed[i] = bfloat16(vector[i]);
        const double exact = vector[i], low = widened(packed[i]);
        norm += exact * exact;
        rounded += low * low;
        residual += (exact - low) * (exact - low);
    }
    std::fill(packed + depth, packed + width, uint16_t(0));
    sizes[0] = std::sqrt(norm), sizes[1] = std::sqrt(rounded), sizes[2] = std::sqrt(residual);
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
    std::vector<uint64_t> hidden;    // a bit for each item that is not allowed
    std::vector<uint64_t> excluded;  // and for each that is excluded; zero between users
    std::vector<uint64_t> keys;
    std::vector<double> terms;

    Search(const Catalogue& catalogue, const Request& asked)
        : items(catalogue), request(asked), k(asked.k),
          capacity((std::max({4 * asked.k, 256, asked.proposals}) + 2 * LANES) / LANES * LANES), hidden(catalogue.items / 64 + 1),
          excluded(catalogue.items / 64 + 1), terms(catalogue.depth + 1) {
        for (int64_t item = 0; asked.allowed && item < catalogue.items; ++item)
            if (!asked.allowed[item]) hidden[item >> 6] |= uint64_t(1) << (item & 63);
    }
};

// Which users (their places in `queries`) look into each block; all of them where there are no probes.
struct Visits {
    std::vector<int64_t> start, user;
    size_t everyone;

    Visits(const Search& search, const std::vector<Query>& queries, int first, int last) : everyone(queries.size()) {
        const Request& request = search.request;
        if (!request.probes) return;
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
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")
namespace avx512_bf16 {
#include "unit_avx512.inc"
#include "search.inc"
}  // namespace avx512_bf16
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,prefer-vector-width=512")
namespace amx_bf16 {
#define SPARKREC_AMX
#include "unit_avx512.inc"
#include "search.inc"
#undef SPARKREC_AMX
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

enum Unit { GENERIC, AVX2, AVX512_BF16, AMX_BF16 };

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
    if ((units & 1 << AVX2) && wide && has(7, 1, 0, 1u << 5)) {
        units |= 1 << AVX512_BF16;
        if (has(7, 0, 3, 1u << 22 | 1u << 24) && tiles_granted()) units |= 1 << AMX_BF16;
    }
#endif
    return units;
}

// The packed matrix from `order`, and the sizes of its blocks.
void sparkrec_pack(const float* vectors, int32_t depth, int32_t width, const int32_t* order, const int64_t* starts,
                   int64_t blocks, uint16_t* packed, float* norms, float* rounded, float* residuals) {
    for (int64_t block = 0; block < blocks; ++block) {
        float* largest[] = {norms + block, rounded + block, residuals + block};
        for (int64_t row = starts[block]; row < starts[block + 1]; ++row) {
            uint16_t* target = packed + row * width;
            double sizes[3] = {0, 0, 0};
            if (order[row] < 0) std::fill(target, target + width, uint16_t(0));
            else round_vector(vectors + int64_t(order[row]) * depth, depth, width, target, sizes);
            for (int i = 0; i < 3; ++i) *largest[i] = std::max(*largest[i], std::nextafter(float(sizes[i]), INF));
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
