/* SPDX-License-Identifier: GPL-2.0 */
/* BCC's helpers.h sizes a tracing buffer with PAGE_SIZE; nothing here uses that buffer. */
#ifndef XDPLB_STUB_PAGE_H
#define XDPLB_STUB_PAGE_H

#define PAGE_SIZE 4096

#endif
