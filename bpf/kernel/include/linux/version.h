/* SPDX-License-Identifier: GPL-2.0 */
/* BCC's helpers.h names LINUX_VERSION_CODE in sections that only tracing programs use. */
#ifndef XDPLB_STUB_VERSION_H
#define XDPLB_STUB_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 16, 0)
#endif

#endif
