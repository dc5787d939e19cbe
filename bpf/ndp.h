/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Neighbour discovery, from which IPv6 learns MAC addresses (RFC 4861).
 */
#ifndef XDPLB_NDP_H
#define XDPLB_NDP_H

#define NDP_SOLICITATION 135
#define NDP_ADVERTISEMENT 136
#define NDP_SOURCE_MAC 1
#define NDP_TARGET_MAC 2
#define NDP_OVERRIDE 0x20 /* in the first byte behind the checksum */

/* Either message, with its first option where that is a MAC address. */
struct ndp_message {
	u8 type;
	u8 code;
	u16 check;
	u8 flags;
	u8 reserved[3];
	address target;
	u8 option;
	u8 option_length; /* in units of 8 bytes */
	u8 mac[6];
};

/* Does @pkt tell of MAC addresses? */
static __always_inline bool neighbour_speaks(const struct packet *pkt)
{
	struct icmp_header *icmp = (void *)(pkt->ip + 1);

	if (pkt->eth->type != be16(ETHERTYPE_IPV6) || pkt->ip->protocol != PROTOCOL_ICMP ||
	    (void *)(icmp + 1) > (void *)(long)pkt->ctx->data_end)
		return false;
	return icmp->type == NDP_SOLICITATION || icmp->type == NDP_ADVERTISEMENT;
}

/*
 * Learn from a solicitation, of who asks, and from an advertisement, of whom it is about. A
 * hop limit of 255 shows that no router has passed it on (RFC 4861 7.1), and the frame must
 * come from the very MAC address it speaks of. An advertisement may ask not to replace what is
 * known (7.2.5); a solicitation always does.
 */
static __always_inline void neighbour_learn(struct packet *pkt)
{
	struct ndp_message *message = (void *)(pkt->ip + 1);
	bool is_answer;
	u64 mac;

	if ((void *)(message + 1) > (void *)(long)pkt->ctx->data_end)
		return;
	is_answer = message->type == NDP_ADVERTISEMENT;
	mac = *(u64 *)&message->option >> 16;
	if (pkt->ip->ttl != 255 || message->code || message->option_length != 1 ||
	    message->option != (is_answer ? NDP_TARGET_MAC : NDP_SOURCE_MAC) ||
	    !neighbour_is_sane(pkt, mac))
		return;
	neighbour_set(pkt, is_answer ? message->target : pkt->ip->source, mac,
		      !is_answer || message->flags & NDP_OVERRIDE);
}

#endif
