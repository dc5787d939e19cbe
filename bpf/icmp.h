/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ICMP errors (RFC 5508). Somebody on the way, or at its end, complains about a packet
 * that left here: the complaint goes on to whoever sent that packet, about the packet as
 * they know it. Only errors about live flows are touched; they neither refresh a flow nor
 * end it. All other ICMP is the kernel's.
 *
 * And one error of our own: time exceeded, so that traceroute sees the balancer.
 */
#ifndef XDPLB_ICMP_H
#define XDPLB_ICMP_H

/* The packet that an error quotes: its IP header, and the first 8 bytes behind it. */
struct quote {
	struct ipv4_header *ip;
	struct port_header *ports;
};

/* Who the quoted packet is from and to in the eyes of the one who sent it. */
struct quote_names {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline struct icmp_header *packet_icmp(const struct packet *pkt)
{
	return (struct icmp_header *)pkt->ports;
}

static __always_inline bool icmp_is_error(u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

/*
 * Find the packet that the error @pkt quotes. False where it is not one that the balancer
 * may have sent, or does not say its ports.
 */
static __always_inline bool quote_find(const struct packet *pkt, struct quote *quote)
{
	void *end = packet_end(pkt->ctx);
	u32 header_length;

	quote->ip = (void *)(packet_icmp(pkt) + 1);
	if ((void *)(quote->ip + 1) > end)
		return false;
	header_length = (quote->ip->version_ihl & 0xf) * 4;
	if (quote->ip->version_ihl >> 4 != 4 || header_length < sizeof(struct ipv4_header) ||
	    !protocol_is_ours(quote->ip->protocol) ||
	    quote->ip->source != (__be32)SERVICE_ADDRESS ||
	    quote->ip->fragment & be16(IPV4_FRAGMENT_OFFSET))
		return false;
	quote->ports = (void *)quote->ip + header_length;
	return (void *)(quote->ports + 2) <= end &&
	       pkt->room >= sizeof(struct icmp_header) + header_length + 8;
}

/*
 * Are the checksums of the error and of the quoted IP header right? (RFC 5508 REQ-3) An
 * error is at most 576 bytes long (RFC 1812 4.3.2.3); a much longer one is none.
 */
static __always_inline bool quote_is_sound(const struct packet *pkt, const struct quote *quote)
{
	u64 message = 0, header = 0;

	return csum_add_bytes(pkt->ctx, packet_icmp(pkt), pkt->room, ICMP_BLOCKS, &message) &&
	       csum_fold(message) == 0xffff &&
	       csum_add_words(pkt->ctx, quote->ip, quote->ip->version_ihl & 0xf, &header) &&
	       csum_fold(header) == 0xffff;
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
	u32 quoted = pkt->room - sizeof(struct icmp_header) - (quote->ip->version_ihl & 0xf) * 4;

	if (quote->ip->protocol == PROTOCOL_UDP)
		return (void *)(udp + 1) <= packet_end(pkt->ctx) && udp->check ? &udp->check : NULL;
	if (quoted < sizeof(struct tcp_header) || (void *)(tcp + 1) > packet_end(pkt->ctx))
		return NULL;
	return &tcp->check;
}

/* Give the quoted packet its @names, and mend the three checksums that notice. */
static __always_inline void quote_rename(const struct packet *pkt, const struct quote *quote,
					 const struct quote_names *names)
{
	struct icmp_header *icmp = packet_icmp(pkt);
	struct ipv4_header *ip = quote->ip;
	struct port_header *ports = quote->ports;
	u64 addresses = csum_diff32(ip->source, names->source) +
			csum_diff32(ip->destination, names->destination);
	u64 diff = addresses + csum_diff16(ports->source, names->source_port) +
		   csum_diff16(ports->destination, names->destination_port);
	u16 *check = quote_check(pkt, quote);
	u16 before = ip->check;
	u64 total = diff;

	ip->check = csum_apply(ip->check, addresses);
	total += csum_diff16(before, ip->check);
	ip->source = names->source;
	ip->destination = names->destination;
	ports->source = names->source_port;
	ports->destination = names->destination_port;
	if (check) {
		before = *check;
		*check = csum_apply(before, diff);
		if (!*check && ip->protocol == PROTOCOL_UDP)
			*check = 0xffff;
		total += csum_diff16(before, *check);
	}
	icmp->check = csum_apply(icmp->check, total);
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
		.protocol = quote->ip->protocol,
	};
	struct route *route = &pkt->route;
	struct flow *flow;
	u32 number;

	flow = answer_flow(&end, &number, &names->destination_port);
	if (!flow)
		return CONTINUE;
	names->source = flow->client;
	names->source_port = flow->client_port;
	names->destination = SERVICE_ADDRESS;
	route->destination = flow->client;
	route->destination_mac = mac_word(flow->client_mac);
	if (!route->destination_mac || !route_leave(pkt, flow->interface))
		return DROP_UNRESOLVED;
	return RETURN_ERROR;
}

/*
 * The quoted packet was an answer on its way to a client: FORWARD_ERROR with the route to
 * the backend, CONTINUE if it was none.
 */
static __always_inline enum verdict
error_about_answer(struct packet *pkt, const struct quote *quote, struct quote_names *names)
{
	struct client_key key = {
		.client = quote->ip->destination,
		.service = SERVICE_ADDRESS,
		.client_port = quote->ports->destination,
		.service_port = quote->ports->source,
		.protocol = quote->ip->protocol,
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
	names->destination = SERVICE_ADDRESS;
	names->destination_port = path.nat_port;
	route->destination = path.backend->address;
	route->destination_mac = path.backend->mac;
	if (!route->destination_mac || !route_leave(pkt, path.backend->interface))
		return DROP_UNRESOLVED;
	return FORWARD_ERROR;
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

	if (!icmp_is_error(packet_icmp(pkt)->type) || pkt->is_fragment || !quote_find(pkt, &quote))
		return PASS_NOT_OURS;
	verdict = error_about_request(pkt, &quote, &names);
	if (verdict == CONTINUE)
		verdict = error_about_answer(pkt, &quote, &names);
	if (verdict == CONTINUE)
		return PASS_NOT_OURS;
	if (!quote_is_sound(pkt, &quote))
		return DROP_CHECKSUM;
	if (pkt->ip->ttl <= 1)
		return DROP_TTL;
	if (verdict == RETURN_ERROR || verdict == FORWARD_ERROR) {
		quote_rename(pkt, &quote, &names);
		rewrite_ip(pkt);
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

/*
 * Turn @pkt, whose TTL has run out, into ICMP time exceeded to its sender, which quotes its
 * IP header and 8 bytes more (RFC 792, RFC 1812 4.3.2). The pointers in @pkt lead nowhere
 * afterwards. REPLY_TTL, or DROP_TTL where nothing can be answered.
 */
static __always_inline enum verdict reply_expired(struct packet *pkt)
{
	u32 header_length = (void *)pkt->ports - (void *)pkt->ip;
	u64 source_mac = mac_word(pkt->eth->destination);
	u64 destination_mac = mac_word(pkt->eth->source);
	__be32 sender = pkt->ip->source;
	struct xdp_md *ctx = pkt->ctx;
	struct icmp_header *icmp;
	struct ipv4_header *ip;
	u64 sum = 0;
	int excess;
	void *data;
	u32 length;

	if (!source_is_sane(sender) || !reply_allowed(pkt->now) ||
	    !route_leave(pkt, pkt->interface))
		return DROP_TTL;
	length = sizeof(struct icmp_header) + header_length + 8;
	excess = (int)((void *)(long)ctx->data_end - (void *)pkt->ports) - 8;
	if (bpf_xdp_adjust_head(ctx, -(int)(sizeof(*ip) + sizeof(*icmp))) ||
	    bpf_xdp_adjust_tail(ctx, -excess))
		return DROP_TTL;
	opaque(ctx);
	data = (void *)(long)ctx->data;
	ip = data + sizeof(struct eth_header);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) > packet_end(ctx))
		return DROP_TTL;
	pkt->eth = data;
	pkt->route.source_mac = source_mac;
	pkt->route.destination_mac = destination_mac;
	rewrite_eth(pkt);
	pkt->eth->type = be16(ETHERTYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->total_length = be16(sizeof(*ip) + length);
	ip->id = 0;
	ip->fragment = be16(IPV4_DONT_FRAGMENT);
	ip->ttl = 64;
	ip->protocol = PROTOCOL_ICMP;
	ip->check = 0;
	ip->source = SERVICE_ADDRESS;
	ip->destination = sender;
	csum_add_words(ctx, ip, sizeof(*ip) / 4, &sum);
	ip->check = ~csum_fold(sum);
	icmp->type = ICMP_TIME_EXCEEDED;
	icmp->code = 0;
	icmp->check = 0;
	icmp->rest = 0;
	sum = 0;
	if (!csum_add_words(ctx, icmp, length / 4, &sum))
		return DROP_TTL;
	icmp->check = ~csum_fold(sum);
	return REPLY_TTL;
}

#endif
