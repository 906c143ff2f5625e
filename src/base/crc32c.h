/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of the state stream.  Thread: [any].
 */
#ifndef SOSIA_BASE_CRC32C_H
#define SOSIA_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue crc (0 to begin) over data. crc32c(0, "123456789", 9) is 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
