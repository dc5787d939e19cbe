/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VLAN tags (IEEE 802.1Q), none, one or two of them. They are taken off a frame before the
 * rest of it is read, so that nobody else has to know of them, and put back on a packet that
 * goes to the kernel. A packet that leaves gets those of the place it goes to.
 *
 * With HAVE_VLAN 0, tagged frames are the kernel's, and none is ever put on.
 *
 * Tags are a word: the first in its lower half, as they lie in a frame; 0 for none.
 */
#ifndef XDPLB_VLAN_H
#define XDPLB_VLAN_H

#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_SERVICE_VLAN 0x88a8

/* A frame's head, its MAC addresses as words, which no tag changes. Its type comes behind. */
struct tagged_header {
	u32 mac[3];
	u32 tag[2];
};

static __always_inline bool type_is_tag(__be16 type)
{
	return type == be16(ETHERTYPE_VLAN) || type == be16(ETHERTYPE_SERVICE_VLAN);
}

/* Does the frame at @ctx begin with a tag, and is there room for two and the type? */
static __always_inline bool frame_is_tagged(struct xdp_md *ctx)
{
	struct tagged_header *frame = (void *)(long)ctx->data;

	return (void *)(frame + 1) + sizeof(__be16) <= (void *)(long)ctx->data_end &&
	       type_is_tag(frame->tag[0]);
}

/*
 * Move the head of the frame at @ctx by @length bytes: what is behind it is cut off, or room is
 * made. Returns where it is now, with the old MAC addresses; NULL where that cannot be.
 */
static __always_inline struct tagged_header *frame_move_head(struct xdp_md *ctx, int length)
{
	struct tagged_header *frame = (void *)(long)ctx->data;
	u32 mac_0, mac_1, mac_2;

	if ((void *)frame + sizeof(struct eth_header) > (void *)(long)ctx->data_end)
		return NULL;
	mac_0 = frame->mac[0];
	mac_1 = frame->mac[1];
	mac_2 = frame->mac[2];
	if (bpf_xdp_adjust_head(ctx, length))
		return NULL;
	opaque(ctx);
	frame = (void *)(long)ctx->data;
	if ((void *)frame + sizeof(struct eth_header) > packet_end(ctx))
		return NULL;
	frame->mac[0] = mac_0;
	frame->mac[1] = mac_1;
	frame->mac[2] = mac_2;
	return frame;
}

/* Take the tags off the tagged frame at @ctx, and return them; 0 where that cannot be. */
static __always_inline u64 frame_untag(struct xdp_md *ctx)
{
	struct tagged_header *frame = (void *)(long)ctx->data;
	int length = sizeof(frame->tag[0]);
	u64 tags;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	tags = frame->tag[0];
	if (type_is_tag(frame->tag[1])) {
		tags |= (u64)frame->tag[1] << 32;
		length = sizeof(frame->tag);
	}
	return frame_move_head(ctx, length) ? tags : 0;
}

/* Put @tags on the frame at @ctx. False where there is no room in front of it. */
static __always_inline bool frame_tag(struct xdp_md *ctx, u64 tags)
{
	int length = tags >> 32 ? sizeof(tags) : sizeof(u32);
	struct tagged_header *frame = frame_move_head(ctx, -length);

	if (!frame || (void *)(frame + 1) > packet_end(ctx))
		return false;
	frame->tag[0] = tags;
	if (tags >> 32)
		frame->tag[1] = tags >> 32;
	return true;
}

/* The number of the VLAN that the innermost of @tags names; 0 without tags. */
static __always_inline u32 tags_vlan(u64 tags)
{
	u32 tag = tags >> 32 ?: tags;

	return be16(tag >> 16) & 0xfff;
}

#endif
