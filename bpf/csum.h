/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One's complement arithmetic (RFC 1071, RFC 1624). Sums are kept in 64 bits and
 * folded at the end; a 32-bit word counts as its two 16-bit halves, because 2^16
 * is 1 modulo 0xffff.
 */
#ifndef XDPLB_CSUM_H
#define XDPLB_CSUM_H

/* Fold @sum, below 2^48, to 16 bits; only a sum of 0 folds to 0. */
static __always_inline u16 csum_fold(u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/* What a change of a 16-bit word adds to a sum: ~m + m' of RFC 1624 equation 3. */
static __always_inline u64 csum_diff16(u16 from, u16 to)
{
	return (u64)(u16)~from + to;
}

/* HC' = ~(~HC + ~m + m'). */
static __always_inline u16 csum_apply(u16 check, u64 diff)
{
	return ~csum_fold((u16)~check + diff);
}

/*
 * Where the tail of @length bytes from @start begins that is shorter than @below, a
 * power of two. It is made from the length, not carried on from the bytes before, so
 * that the verifier meets one state there and not one for each length.
 */
static __always_inline void *csum_tail(void *start, u32 length, u32 below)
{
	u32 offset = length & 0xfff & ~(below - 1);

	opaque(offset);
	return start + (offset & 0xfff);
}

/*
 * Add @length bytes at @start to @sum. False where they do not lie in the packet or
 * are more than @most blocks of 32 hold, or fewer than 8 in all. An odd last byte counts as if
 * a 0 followed it.
 *
 * The verifier is not to see that the walk begins at @start: it would take note of how far the
 * packet reaches beyond that, and go on with as many different packets as there are blocks.
 */
static __always_inline bool csum_add_bytes(struct xdp_md *ctx, void *start, u32 length, u32 most,
					   u64 *sum)
{
	void *end = packet_end(ctx);
	u32 blocks = length / 32;
	u64 total = 0, zero = 0, noise;
	u32 *word = start;

	if (blocks > most || start + sizeof(noise) > end)
		return false;
	noise = *(u64 *)start;
	forget(zero, noise);
	word = start + (zero & 7);
#pragma clang loop unroll(disable)
	for (u32 block = 0; block < most; block++) {
		opaque(word);
		opaque(blocks);
		if (block >= blocks)
			break;
		if ((void *)(word + 8) > end)
			return false;
		total += (u64)word[0] + word[1] + word[2] + word[3];
		total += (u64)word[4] + word[5] + word[6] + word[7];
		word += 8;
	}
	forget(total, noise);
	if (length & 16) {
		word = csum_tail(start, length, 32);
		if ((void *)(word + 4) > end)
			return false;
		total += (u64)word[0] + word[1] + word[2] + word[3];
	}
	if (length & 8) {
		word = csum_tail(start, length, 16);
		if ((void *)(word + 2) > end)
			return false;
		total += (u64)word[0] + word[1];
	}
	if (length & 4) {
		word = csum_tail(start, length, 8);
		if ((void *)(word + 1) > end)
			return false;
		total += word[0];
	}
	if (length & 2) {
		u16 *half = csum_tail(start, length, 4);

		if ((void *)(half + 1) > end)
			return false;
		total += *half;
	}
	if (length & 1) {
		u8 *byte = csum_tail(start, length, 2);

		if ((void *)(byte + 1) > end)
			return false;
		total += be16((u16)*byte << 8);
	}
	*sum += total;
	return true;
}

#endif
