/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP errors (RFC 5508). Somebody on the way, or at its end, complains about a packet
 * that left here: the complaint goes on to whoever sent that packet, about the packet as
 * they know it. Only errors about live flows are touched; they neither refresh a flow nor
 * end it. All other ICMP is the kernel's.
 *
 * And errors of our own: time exceeded, so that traceroute sees the balancer, and packet too
 * big, where one of its interfaces is the narrow place.
 */
#ifndef XDPLB_ICMP_H
#define XDPLB_ICMP_H

/* The packet that an error quotes: its IP header, and the first 8 bytes behind it. */
struct quote {
	struct ip_header *ip;
	struct port_header *ports;
	u32 header_length;
	u8 protocol;
};

/* Who the quoted packet is from and to in the eyes of the one who sent it. */
struct quote_names {
	address source;
	address destination;
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline struct icmp_header *packet_icmp(const struct packet *pkt)
{
	return (struct icmp_header *)pkt->ports;
}

/* Does @icmp, an error, say that nobody is at the port? */
static __always_inline bool icmp_says_refused(const struct icmp_header *icmp)
{
	return icmp->type == ICMP_UNREACHABLE && icmp->code == ICMP_PORT_UNREACHABLE;
}

/*
 * Find the packet that the error @pkt quotes. False where it is not one that the balancer
 * may have sent, or does not say its ports.
 */
static __always_inline bool quote_find(const struct packet *pkt, struct quote *quote)
{
	void *end = packet_end(pkt->ctx);
	struct payload payload;

	quote->ip = (void *)(packet_icmp(pkt) + 1);
	if ((void *)(quote->ip + 1) > end || !ip_walk(pkt->ctx, quote->ip, &payload) ||
	    !protocol_is_ours(payload.protocol) ||
	    own_number(quote->ip->source) != packet_local(pkt) ||
	    payload.fragment & FRAGMENT_OFFSET)
		return false;
	quote->ports = payload.start;
	quote->protocol = payload.protocol;
	quote->header_length = payload.start - (void *)quote->ip;
	return (void *)(quote->ports + 2) <= end &&
	       pkt->room >= sizeof(struct icmp_header) + quote->header_length + 8;
}

/* Are the checksums of the error and of the quoted IP header right? (RFC 5508 REQ-3) */
static __always_inline bool quote_is_sound(const struct packet *pkt, const struct quote *quote)
{
	u64 sum = icmp_pseudo(pkt->ip->source, pkt->ip->destination, pkt->room);

	return csum_add_bytes(pkt->ctx, packet_icmp(pkt), pkt->room, ICMP_BLOCKS, &sum) &&
	       csum_fold(sum) == 0xffff && ip_is_sound(pkt->ctx, quote->ip);
}

/*
 * Where the quoted checksum of UDP or TCP stands; NULL where it is cut off, or is none. What
 * lies behind the IP packet, as padding, is not part of the quote.
 */
static __always_inline u16 *quote_check(const struct packet *pkt, const struct quote *quote)
{
	void *header = quote->ports;
	struct tcp_header *tcp = header;
	struct udp_header *udp = header;
	u32 quoted = pkt->room - sizeof(struct icmp_header) - quote->header_length;

	if (quote->protocol == PROTOCOL_UDP)
		return (void *)(udp + 1) <= packet_end(pkt->ctx) && udp->check ? &udp->check : NULL;
	if (quoted < __builtin_offsetof(struct tcp_header, urgent) ||
	    (void *)&tcp->urgent > packet_end(pkt->ctx))
		return NULL;
	return &tcp->check;
}

/* Give the quoted packet its @names, mend its checksums; returns what that adds to a sum. */
static __always_inline u64 quote_rename(const struct packet *pkt, const struct quote *quote,
					const struct quote_names *names)
{
	struct ip_header *ip = quote->ip;
	struct port_header *ports = quote->ports;
	u64 addresses = address_diff(ip->source, names->source) +
			address_diff(ip->destination, names->destination);
	u64 diff = csum_diff16(ports->source, names->source_port) +
		   csum_diff16(ports->destination, names->destination_port);
	u16 *check = quote_check(pkt, quote);
	u64 total = diff;

	total += ip_mend_quote(ip, addresses);
	ip->source = names->source;
	ip->destination = names->destination;
	ports->source = names->source_port;
	ports->destination = names->destination_port;
	if (check) {
		u16 before = *check;

		*check = csum_apply(before, addresses + diff);
		if (!*check && quote->protocol == PROTOCOL_UDP)
			*check = 0xffff;
		total += csum_diff16(before, *check);
	}
	return total;
}

/*
 * The quoted packet was a request on its way to a backend: RETURN_ERROR with the route to
 * its client, CONTINUE if it was none.
 */
static __always_inline enum verdict
error_about_request(struct packet *pkt, const struct quote *quote, struct quote_names *names)
{
	struct far_end end = {
		.address = quote->ip->destination,
		.port = quote->ports->destination,
		.nat_port = quote->ports->source,
		.local = packet_local(pkt),
		.protocol = quote->protocol,
	};
	struct route *route = &pkt->route;
	struct flow *flow;
	u32 number;

	flow = answer_flow(&end, &number, &names->destination_port);
	if (!flow)
		return CONTINUE;
	route->backend = number;
	names->source = flow->client;
	names->source_port = flow->client_port;
	route->local = own_of_service(flow->service);
	names->destination = own_address(route_local(route));
	route->tags = HAVE_VLAN ? flow->tags : 0;
	route->destination = flow->client;
	route->destination_mac = mac_word(flow->client_mac);
	if (!route->destination_mac || !route_leave(pkt, flow->interface))
		return DROP_UNRESOLVED;
	return route_fits(pkt) ? RETURN_ERROR : DROP_TOO_BIG;
}

/*
 * The quoted packet was an answer on its way to a client: FORWARD_ERROR with the route to
 * the backend, CONTINUE if it was none.
 */
static __always_inline enum verdict
error_about_answer(struct packet *pkt, const struct quote *quote, struct quote_names *names)
{
	bool is_tcp = quote->protocol == PROTOCOL_TCP;
	struct client_key key = {
		.client = quote->ip->destination,
		.service = own_address(packet_local(pkt)),
		.client_port = quote->ports->destination,
		.service_port = quote->ports->source,
		.protocol = quote->protocol,
		.number = service_find(packet_local(pkt), is_tcp, quote->ports->source),
	};
	struct client_value *value = client_port.lookup(&key);
	struct route *route = &pkt->route;
	struct flow *flow;
	struct path path;

	if (HAVE_RESERVATIONS && !value) {
		key.service_port = 0;
		value = client_port.lookup(&key);
	}
	if (!value)
		return CONTINUE;
	flow = flow_indexed(value, &key, &path);
	if (!flow || !owner_is_flow(flow->owner))
		return CONTINUE;
	names->source = path.backend->address;
	names->source_port = path.backend->port ?: quote->ports->source;
	route->local = path.backend->local;
	names->destination = own_address(route_local(route));
	names->destination_port = path.nat_port;
	route->destination = path.backend->address;
	route->destination_mac = path.backend->mac;
	if (!route->destination_mac || !route_leave(pkt, path.backend->interface))
		return DROP_UNRESOLVED;
	route->tags = backend_tags(pkt, path.backend);
	return route_fits(pkt) ? FORWARD_ERROR : DROP_TOO_BIG;
}

/*
 * Translate the ICMP error @pkt. RETURN_ERROR or FORWARD_ERROR with the packet and its
 * route ready to leave, PASS if it is about nothing of ours, or a DROP.
 */
static __always_inline enum verdict translate_error(struct packet *pkt)
{
	struct quote_names names;
	struct quote quote;
	enum verdict verdict;

	if (!icmp_is_error(packet_icmp(pkt)->type) || packet_is_fragment(pkt) ||
	    !quote_find(pkt, &quote))
		return PASS_NOT_OURS;
	verdict = error_about_request(pkt, &quote, &names);
	if (verdict == CONTINUE)
		verdict = error_about_answer(pkt, &quote, &names);
	if (verdict == CONTINUE)
		return PASS_NOT_OURS;
	if (!quote_is_sound(pkt, &quote))
		return DROP_CHECKSUM;
	if (verdict == RETURN_ERROR && icmp_says_refused(packet_icmp(pkt)))
		count_refused(pkt->route.backend);
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	if (verdict == RETURN_ERROR || verdict == FORWARD_ERROR) {
		struct icmp_header *icmp = packet_icmp(pkt);
		u64 diff = quote_rename(pkt, &quote, &names);

		diff += icmp_pseudo_diff(rewrite_ip(pkt));
		icmp->check = csum_apply(icmp->check, diff);
	}
	return verdict;
}

/* May one more error of our own be sent at @now? */
static __always_inline bool reply_allowed(u32 now)
{
	u32 zero = 0;
	struct reply_limit *limit = reply_limits.lookup(&zero);

	if (!limit)
		return false;
	if (limit->tick != now) {
		limit->tick = now;
		limit->sent = 0;
	}
	return limit->sent++ < REPLIES_PER_TICK;
}

/* Say @reason in @icmp: that the time has run out, or that the way on takes only @mtu bytes. */
static __always_inline void reply_reason(struct icmp_header *icmp, enum verdict reason, u32 mtu)
{
	icmp->check = 0;
	if (reason == DROP_TOO_BIG) {
		icmp_too_big(icmp, mtu);
		return;
	}
	icmp->type = ICMP_TIME_EXCEEDED;
	icmp->code = 0;
	icmp->rest = 0;
}

/*
 * Turn @pkt, which must not go on for @reason, DROP_TTL or DROP_TOO_BIG, into an ICMP error to
 * its sender, which quotes the head of it (RFC 792, RFC 1191, RFC 1812 4.3.2, RFC 4443). The
 * pointers in @pkt lead nowhere afterwards. REPLY_TTL or REPLY_TOO_BIG, or @reason where
 * nothing can be answered.
 */
static __always_inline enum verdict reply_error(struct packet *pkt, enum verdict reason)
{
	u32 header_length = (void *)pkt->ports - (void *)pkt->ip;
	u32 quoted = icmp_quotes(pkt->ip_length, header_length);
	u64 source_mac = mac_word(pkt->eth->destination);
	u64 destination_mac = mac_word(pkt->eth->source);
	u32 length = sizeof(struct icmp_header) + quoted;
	address sender = pkt->ip->source, own = own_address(packet_local(pkt));
	struct xdp_md *ctx = pkt->ctx;
	u32 mtu = pkt->route.mtu;
	struct icmp_header *icmp;
	struct ip_header *ip;
	int excess;
	void *data;
	u64 sum;

	if (reason == DROP_TOO_BIG && ip_may_fragment(pkt->ip))
		return reason;
	if (!source_is_sane(sender) || !reply_allowed(pkt->now) ||
	    !route_leave(pkt, pkt->interface))
		return reason;
	excess = (int)((void *)(long)ctx->data_end - (void *)pkt->ip) - quoted;
	if (bpf_xdp_adjust_head(ctx, -(int)(sizeof(*ip) + sizeof(*icmp))) ||
	    bpf_xdp_adjust_tail(ctx, -excess))
		return reason;
	opaque(ctx);
	data = (void *)(long)ctx->data;
	ip = data + sizeof(struct eth_header);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) > packet_end(ctx))
		return reason;
	pkt->eth = data;
	pkt->route.source_mac = source_mac;
	pkt->route.destination_mac = destination_mac;
	pkt->route.tags = pkt->tags;
	rewrite_eth(pkt);
	pkt->eth->type = be16(ETHERTYPE_IP);
	ip_compose(ctx, ip, length, own, sender);
	reply_reason(icmp, reason, mtu);
	sum = icmp_pseudo(own, sender, length);
	if (!csum_add_bytes(ctx, icmp, length, ICMP_BLOCKS, &sum))
		return reason;
	icmp->check = ~csum_fold(sum);
	return reason == DROP_TTL ? REPLY_TTL : REPLY_TOO_BIG;
}

#endif
