/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counters, one copy a CPU: nobody waits for anybody.
 */
#ifndef XDPLB_STATS_H
#define XDPLB_STATS_H

static __always_inline void count_verdict(enum verdict verdict)
{
	u32 index = verdict;
	u64 *packets = verdicts.lookup(&index);

	if (packets)
		(*packets)++;
}

/* A packet of @bytes goes to backend number @backend. */
static __always_inline void count_in(u32 backend, u32 bytes)
{
	struct backend_stats *stats = backend_stats.lookup(&backend);

	if (!stats)
		return;
	stats->packets_in++;
	stats->bytes_in += bytes;
}

/* A packet of @bytes came from backend number @backend. */
static __always_inline void count_out(u32 backend, u32 bytes)
{
	struct backend_stats *stats = backend_stats.lookup(&backend);

	if (!stats)
		return;
	stats->packets_out++;
	stats->bytes_out += bytes;
}

/* It is said of backend number @backend that nobody is at its port. */
static __always_inline void count_refused(u32 backend)
{
	struct backend_stats *stats = backend_stats.lookup(&backend);

	if (stats)
		stats->refused++;
}

#endif
