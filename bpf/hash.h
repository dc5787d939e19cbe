/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The keyed hash that spreads clients over backends, and flows over records.
 */
#ifndef XDPLB_HASH_H
#define XDPLB_HASH_H

/*
 * A keyed hash: multiply, fold, multiply, with two secret 64-bit keys. It only has to
 * spread, and to be out of reach for somebody who picks addresses to hit one backend.
 * xdplb/selection.py computes the same.
 */
static __always_inline u64 hash_word(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	hash ^= hash >> 32;
	hash *= HASH_KEY_1 | 1ULL;
	return hash ^ (hash >> 29);
}

#endif
