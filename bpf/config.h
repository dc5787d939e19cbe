/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What `xdplb up` decides before it compiles, and a default for each so that the
 * text also compiles by itself. Numbers only. Addresses are in network order, as
 * they lie in a packet and are loaded from it; ports are in host order.
 */
#ifndef XDPLB_CONFIG_H
#define XDPLB_CONFIG_H

/* The IP version: the program is compiled once for each that has a service. */
#ifndef FAMILY
#define FAMILY 4
#endif

/* Attached in generic (skb) mode: partial checksums stay partial. See csum.h. */
#ifndef MODE_GENERIC
#define MODE_GENERIC 0
#endif

/* How a packet leaves on the interface it came in by: bpf_redirect() or XDP_TX. */
#ifndef TRANSMIT_REDIRECT
#define TRANSMIT_REDIRECT 1
#endif

/* How many interfaces share the program; with one, none is ever looked up. */
#ifndef INTERFACE_COUNT
#define INTERFACE_COUNT 1
#endif

/* The protocols that are balanced; what is not costs nothing. */
#ifndef HAVE_UDP
#define HAVE_UDP 1
#endif
#ifndef HAVE_TCP
#define HAVE_TCP 0
#endif

/* Tagged frames are balanced, too; else they are the kernel's, and cost nothing to others. */
#ifndef HAVE_VLAN
#define HAVE_VLAN 1
#endif

/*
 * More than one address is the balancer's, or one protocol has more than one service. Then
 * services and addresses are looked up; else they are the constants below.
 */
#ifndef MANY_SERVICES
#define MANY_SERVICES 0
#endif

/*
 * The balancer's addresses: ADDRESS(number, word, word) for each. Clients dial some of them,
 * and it speaks to backends from some.
 */
#ifndef ADDRESSES
#define ADDRESSES(ADDRESS)
#endif

/*
 * The one address, that clients dial and that the balancer speaks from, in the words that it is
 * loaded in: one of 32 bits for IPv4, two of 64 for IPv6.
 */
#ifndef SERVICE_WORD_0
#define SERVICE_WORD_0 0
#endif
#ifndef SERVICE_WORD_1
#define SERVICE_WORD_1 0
#endif

/* Its ports: RANGE(first, last) for each range. */
#ifndef SERVICE_PORTS
#define SERVICE_PORTS(RANGE) RANGE(0, 65535)
#endif

/* Its ports may hold sockets of the host: ask for one before a flow is opened. */
#ifndef SERVICE_SHARES_PORTS
#define SERVICE_SHARES_PORTS 1
#endif

/* What is hashed to choose a backend. */
#define HASH_SRC_DST 0
#define HASH_5_TUPLE 1
#define HASH_SRC 2
#ifndef SERVICE_HASH
#define SERVICE_HASH HASH_SRC_DST
#endif

/* The secret of this balancer: nobody outside can compute the hash. */
#ifndef HASH_KEY_0
#define HASH_KEY_0 0
#endif
#ifndef HASH_KEY_1
#define HASH_KEY_1 1
#endif

/* Entries of the Maglev table, a prime (Eisenbud et al., NSDI 2016). */
#ifndef MAGLEV_SIZE
#define MAGLEV_SIZE 16381
#endif

/* The ports that flows get: RANGE(first, last, offset of first in the pool). */
#ifndef NAT_PORTS
#define NAT_PORTS(RANGE) RANGE(1024, 32767, 0) RANGE(61000, 65535, 31744)
#endif

/*
 * MAC addresses that frames for the balancer may have beside the interface's own, MAC(word) for
 * each: those that VRRP lets move from one machine to another (RFC 5798 7.3).
 */
#ifndef VIRTUAL_MACS
#define VIRTUAL_MACS(MAC)
#endif

/* Some flows were reserved with `--client`. */
#ifndef HAVE_RESERVATIONS
#define HAVE_RESERVATIONS 0
#endif

/* Room for backends, a power of two. */
#ifndef MAX_BACKENDS
#define MAX_BACKENDS 256
#endif

/* The most backends that share one next hop: what the verifier follows of a chain. */
#define MAX_NEIGHBOURS 1024

/* How many buckets of backend_ports an address may be found in. */
#define BUCKET_STEPS 8

/* How far apart the buckets are of one address that answers to several of the balancer's. */
#define LOCAL_STRIDE 40503

/*
 * A tick is 2^26 ns, 67 ms: fine enough for timeouts, and 32 bits last nine years. It is
 * made of the kernel's jiffies, which take no call to read: each is JIFFY_SCALE / 2^20
 * ticks. The default is for 250 jiffies a second.
 */
#ifndef JIFFY_SCALE
#define JIFFY_SCALE 62500
#endif
#define JIFFY_SHIFT 20

/* Idle times after which a port may be given away, in ticks: 30 s and 120 s. */
#ifndef UNREPLIED_TICKS
#define UNREPLIED_TICKS 448
#endif
#ifndef ANSWERED_TICKS
#define ANSWERED_TICKS 1789
#endif

/* The same for TCP: not (yet, or any more) established 240 s, established 7440 s (RFC 5382). */
#ifndef TRANSITORY_TICKS
#define TRANSITORY_TICKS 3576
#endif
#ifndef ESTABLISHED_TICKS
#define ESTABLISHED_TICKS 110865
#endif

/*
 * How much longer a port rests before another client gets it, while others are to be had: 120 s
 * (RFC 6888 REQ-8). What was sent to its last client has arrived by then, or never will.
 */
#define REST_TICKS 1789

/*
 * A record is written only when it is this much behind, about a second, so that a
 * hot flow dirties no cache line per packet. It is far below every timeout.
 */
#ifndef REFRESH_TICKS
#define REFRESH_TICKS 16
#endif

/* Where a flow is looked for first: this many records, at the place that its hash says. */
#define HOME_SHIFT 2
#define HOME_PLACES (1 << HOME_SHIFT)

/* A new flow that finds them taken looks at so many windows of so many records. */
#define PROBE_WINDOWS 4
#define PROBE_WINDOW 32
#define PROBE_PLACES (PROBE_WINDOWS * PROBE_WINDOW)

/* And before that at these, where clients have a part of the records of their own. */
#define NEAR_WINDOWS 2
#define NEAR_PLACES (CLIENT_WINDOW ? NEAR_WINDOWS * PROBE_WINDOW : 0)

/* How many flows one client may have; 0 for as many as it likes. */
#ifndef CLIENT_LIMIT
#define CLIENT_LIMIT 0
#endif

/* Counters in each row of client_flows, a power of two. */
#ifndef CLIENT_COUNTERS
#define CLIENT_COUNTERS 1024
#endif

/* How many records a client's flows are spread over; 0 for all of a backend's. */
#ifndef CLIENT_WINDOW
#define CLIENT_WINDOW 0
#endif

/* How long the fragments of a datagram may follow its first one: 5 s (RFC 6146 asks for 2). */
#define FRAGMENT_TICKS 75

/* ICMP errors of our own, per CPU and tick (67 ms). */
#define REPLIES_PER_TICK 16

/*
 * `xdplb trace`: how much of each frame it takes, which verdicts it is about (a bit for each) and
 * whether it is about new flows, of which clients (addresses in a network, with one port or any),
 * and of how many packets it takes one.
 */
#ifndef HAVE_TRACE
#define HAVE_TRACE 0
#endif
#ifndef TRACE_SNAP
#define TRACE_SNAP 128
#endif
#ifndef TRACE_VERDICTS
#define TRACE_VERDICTS 0ULL
#endif
#ifndef TRACE_NEW
#define TRACE_NEW 0
#endif
#ifndef TRACE_OF_CLIENT
#define TRACE_OF_CLIENT 0
#endif
#ifndef TRACE_CLIENT_0
#define TRACE_CLIENT_0 0ULL
#define TRACE_CLIENT_1 0ULL
#define TRACE_MASK_0 0ULL
#define TRACE_MASK_1 0ULL
#endif
#ifndef TRACE_PORT
#define TRACE_PORT 0
#endif
#ifndef TRACE_SAMPLE
#define TRACE_SAMPLE 1
#endif

/* Blocks of 32 bytes that a checksum may run over: the largest packet native mode gets. */
#define CSUM_BLOCKS 112

#endif
