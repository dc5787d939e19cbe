/* SPDX-License-Identifier: GPL-2.0 */
/* The fixed-width names of the kernel, without the kernel. */
#ifndef XDPLB_STUB_TYPES_H
#define XDPLB_STUB_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s8 __s8;
typedef s16 __s16;
typedef s32 __s32;
typedef s64 __s64;

typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u16 __le16;
typedef u32 __le32;
typedef u64 __le64;
typedef u16 __sum16;
typedef u32 __wsum;

#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __aligned_be64 __be64 __attribute__((aligned(8)))
#define __aligned_le64 __le64 __attribute__((aligned(8)))

typedef unsigned long size_t;
typedef unsigned long uintptr_t;

#ifndef __bool_true_false_are_defined
typedef _Bool bool;
#define true 1
#define false 0
#define __bool_true_false_are_defined 1
#endif

/* No debug information: it would be copied with each inlining, and only maps have a use for it. */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline, nodebug))
#endif

#ifndef NULL
#define NULL ((void *)0)
#endif

#endif
