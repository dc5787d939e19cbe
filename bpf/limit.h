/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How many flows each client has, so that none takes all ports of a backend (RFC 6888
 * REQ-4). A client is an address of IPv4, or the first half of one of IPv6: see
 * hash_subscriber().
 *
 * There are two rows of counters. A client has one in each, where a secret hash says, and
 * shares it with others; the smaller of the two is taken for its count. That is never too
 * low, and seldom too high (a count-min sketch: Cormode and Muthukrishnan, 2005).
 */
#ifndef XDPLB_LIMIT_H
#define XDPLB_LIMIT_H

#define LIMIT_ROWS 2

/* The counter that @hash has in @row. */
static __always_inline s32 *limit_counter(u64 hash, u32 row)
{
	u32 index = row * CLIENT_COUNTERS + (hash >> row * 32 & (CLIENT_COUNTERS - 1));

	return client_flows.lookup(&index);
}

/* Has @client as many flows as it may have? */
static __always_inline bool limit_is_reached(address client)
{
	u64 hash = hash_subscriber(client);
	s32 *one, *other;

	if (!CLIENT_LIMIT)
		return false;
	one = limit_counter(hash, 0);
	other = limit_counter(hash, 1);
	return one && other && *one >= CLIENT_LIMIT && *other >= CLIENT_LIMIT;
}

/* A flow of @client begins. */
static __always_inline void limit_count(address client)
{
	u64 hash = hash_subscriber(client);

	if (!CLIENT_LIMIT)
		return;
#pragma clang loop unroll(full)
	for (u32 row = 0; row < LIMIT_ROWS; row++) {
		s32 *count = limit_counter(hash, row);

		if (count)
			__sync_fetch_and_add(count, 1);
	}
}

/*
 * A flow of @client has ended. Where it was never counted, because there was no limit when it
 * began, the counter may be 0 already. Two CPUs at once could take it below that: it is signed,
 * so that this does no harm.
 */
static __always_inline void limit_uncount(address client)
{
	u64 hash = hash_subscriber(client);

	if (!CLIENT_LIMIT)
		return;
#pragma clang loop unroll(full)
	for (u32 row = 0; row < LIMIT_ROWS; row++) {
		s32 *count = limit_counter(hash, row);

		if (count && *count > 0)
			__sync_fetch_and_add(count, -1);
	}
}

/*
 * With a limit so low that a client's flows would get lost among the others, they lie close
 * together: in so many groups of HOME_PLACES records, from a place on that is secret.
 */
#define LIMIT_GROUPS ((CLIENT_WINDOW + HOME_PLACES - 1) / HOME_PLACES)

/* Has each client its own window among @groups groups, or all of them? */
static __always_inline bool limit_has_window(u32 groups)
{
	return CLIENT_WINDOW && groups > LIMIT_GROUPS;
}

/* The first group of @client's window among @groups. */
static __always_inline u32 limit_window(address client, u32 groups)
{
	return (hash_subscriber(client) & 0xffffffff) * groups >> 32;
}

#endif
