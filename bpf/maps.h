/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every map; IPv4 and IPv6 each have their own of all but interfaces, reply_limits,
 * verdicts and those of a trace. The sizes here only satisfy the compiler: Python creates the maps,
 * with the sizes that `up` was asked for, and puts them in place of these.
 */
#ifndef XDPLB_MAPS_H
#define XDPLB_MAPS_H

/* Backend number -> the server. Python writes; the program keeps the MAC current. */
BPF_TABLE("array", u32, struct backend, backends, 1);

/*
 * Client, service, protocol -> NAT port and backend: the index into reverse_lookup.
 * The program adds and removes flows, Python reservations. Nothing is ever evicted.
 */
BPF_TABLE("hash", struct client_key, struct client_value, client_port, 1);

/*
 * Slot of the backend + offset of the NAT port -> the flow. Written together with
 * client_port and before it. An idle record is taken over when its port is wanted.
 */
BPF_TABLE("array", u32, struct flow, reverse_lookup, 1);

/*
 * Hash of a client -> how many flows it has, in two rows: see limit.h. Written by the program, and
 * by Python for flows that it restores.
 */
BPF_TABLE("array", u32, s32, client_flows, 1);

/* Hash of a backend's address -> its part of reverse_lookup. Written by Python. */
BPF_TABLE("array", u32, struct address_bucket, backend_ports, 1);

/* Next hop address -> the first backend behind it. Written by Python. */
BPF_TABLE("hash", address, u32, next_hops, 1);

/* Service number -> the service. Written by Python. */
BPF_TABLE("array", u32, struct service, services, 1);

/*
 * Address number, protocol and upper half of a port -> for each of PORT_BLOCK ports the number
 * of the service. Written by Python; only the first number is declared, as of maglev.
 */
BPF_TABLE("array", u32, u8, service_ports, 1);

/* Address number -> the address of the balancer. Written by Python. */
BPF_TABLE("array", u32, address, addresses, 1);

/*
 * Table number -> MAGLEV_SIZE backend numbers; two tables a service. Written by Python.
 * Only the first number is declared: BCC would take a second over the whole array.
 */
BPF_TABLE("array", u32, u16, maglev, 1);

/* Interface slot -> the interface. Written by Python. */
BPF_TABLE("array", u32, struct interface, interfaces, 1);

/*
 * Datagram in fragments -> where its first one went. Written by the program; the oldest
 * make room for the newest.
 */
BPF_TABLE("lru_hash", struct fragment_key, struct fragment, fragments, 1);

/* The identification of the last datagram that left in fragments, in the one element. */
BPF_TABLE("array", u32, u64, fragment_ids, 1);

/* What was answered with ICMP errors of our own. Written by the program. */
BPF_TABLE("percpu_array", u32, struct reply_limit, reply_limits, 1);

#if HAVE_TRACE
/* Of `xdplb trace`, for both IP versions: the packet in hand, and what was asked for. */
BPF_TABLE("percpu_array", u32, struct trace, traces, 1);
BPF_RINGBUF_OUTPUT(trace_events, 1);

/* When the asking ends, in nanoseconds of the monotonic clock. Written by Python. */
BPF_TABLE("array", u32, u64, trace_until, 1);
#endif

/* enum verdict -> packets, and backend number -> traffic. Written by the program. */
BPF_TABLE("percpu_array", u32, u64, verdicts, VERDICT_MAX);
BPF_TABLE("percpu_array", u32, struct backend_stats, backend_stats, 1);

#endif
