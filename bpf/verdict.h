/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What became of a packet. Every step returns one of these; only finish() counts
 * them and turns them into an XDP action. Python reads the names from this file.
 */
#ifndef XDPLB_VERDICT_H
#define XDPLB_VERDICT_H

enum verdict {
	FORWARD,	   /* client -> backend */
	RETURN,		   /* backend -> client */
	FORWARD_ERROR,	   /* an ICMP error about an answer, to the backend that sent it */
	RETURN_ERROR,	   /* an ICMP error about a request, to the client that sent it */
	REPLY_TTL,	   /* answered with ICMP time exceeded */
	REPLY_TOO_BIG,	   /* answered with ICMP fragmentation needed, or packet too big */
	PASS_NOT_OURS,	   /* to the kernel, untouched: no service wants it */
	PASS_SOCKET,	   /* to the kernel, untouched: a socket of the host owns the port */
	PASS_NO_FLOW,	   /* to the kernel, untouched: TCP in the middle of no known connection */
	PASS_FRAGMENT,	   /* to the kernel, untouched: a fragment whose first one is not known */
	DROP_MALFORMED,	   /* the UDP or TCP header contradicts the IP length */
	DROP_FRAGMENT,	   /* a fragment of a length or at a place where none can be */
	DROP_CHECKSUM,	   /* of an ICMP error it is wrong, or UDP over IPv6 has none */
	DROP_TTL,	   /* would leave with a TTL of 0, and too many were answered just now */
	DROP_TOO_BIG,	   /* too long for the way on, and nothing may be said about it */
	DROP_MARTIAN,	   /* a source address that nobody can answer */
	DROP_NO_BACKEND,   /* no backend takes traffic, or the flow waits for its own */
	DROP_UNRESOLVED,   /* the MAC address of the way there is not known (yet) */
	DROP_NO_PORT,	   /* no free NAT port toward the backend was found */
	DROP_TABLE_FULL,   /* client_port has no room */
	DROP_CLIENT_LIMIT, /* the client has as many flows as it may have */
	VERDICT_MAX,
	CONTINUE = VERDICT_MAX, /* not decided: on to the next step */
};

/* Does a packet with @verdict leave again? */
static __always_inline bool verdict_is_sent(enum verdict verdict)
{
	return verdict < PASS_NOT_OURS;
}

#endif
