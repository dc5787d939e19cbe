/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a segment tells of its connection. The aim is to know when a connection is over,
 * and to believe no third party who says so: a RST only shortens the time that an idle
 * connection is kept, and the end it seems to come from takes it back by going on. A SYN
 * means nothing while the connection is open (RFC 5382 REQ-5, RFC 7857 section 2).
 */
#ifndef XDPLB_TCP_H
#define XDPLB_TCP_H

/* Does a segment with @flags open a connection? */
static __always_inline bool tcp_opens(u8 flags)
{
	return (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* May a client open a new connection with the port that it had one with in @state? */
static __always_inline bool tcp_is_over(u32 state)
{
	return state == TCP_CLOSING || state == TCP_CLIENT_RST || state == TCP_BACKEND_RST;
}

/* The state after a segment with @flags, which were @state before. */
static __always_inline u32 tcp_after(u32 state, u8 flags, bool from_client)
{
	u32 own_fin = from_client ? TCP_CLIENT_FIN : TCP_BACKEND_FIN;
	u32 other_fin = from_client ? TCP_BACKEND_FIN : TCP_CLIENT_FIN;
	u32 own_rst = from_client ? TCP_CLIENT_RST : TCP_BACKEND_RST;

	if (flags & TCP_RST)
		return state == TCP_CLOSING ? TCP_CLOSING : own_rst;
	if (flags & TCP_SYN) {
		if (from_client)
			return tcp_is_over(state) ? TCP_OPENING : state;
		return state == TCP_OPENING ? TCP_ACCEPTED : state;
	}
	if (flags & TCP_FIN) {
		if (state == other_fin || state == TCP_CLOSING)
			return TCP_CLOSING;
		return own_fin;
	}
	if (state == own_rst || state == (from_client ? TCP_ACCEPTED : TCP_OPENING))
		return TCP_ESTABLISHED;
	return state;
}

#endif
