/* SPDX-License-Identifier: Apache-2.0
 *
 * Sliding blocks: translations that all processes of a guest share.
 *
 * With address-space randomisation each process maps the same pages of a program or library to
 * addresses of its own. The first translation of a page is for the address where it was met. When
 * the page is met at a second one, what is translated of it from then on is for any: addresses in
 * such code (RIP-relative operands, return addresses, targets of branches) are counted from a place
 * of the page's own, and bt_hot.slide, the distance from there to where the page is mapped now, is
 * added when they are used. Whoever comes from a look-up or a return sets the slide at the block's
 * landing; direct branches keep it, because the pages of one file are mapped together. Where two
 * pages are not counted alike, a branch between them is done by look-up.
 *
 * The count stays within 31 bits, so that an address is one LEA with the slide. bt_cache.page_at
 * has for each page: nothing yet; the address that its translations are for; or, odd, its count.
 */
#include "base/bits.h"
#include "cpu/stop.h"
#include "engine/bt/bt.h"

#define SLIDING 1ull
#define WINDOW_BITS 24u /* a program and its libraries lie in few such pieces of address space */
#define COUNT_FIRST 0x10000000ull
#define COUNT_END 0x70000000ull

static bool countable(uint64_t count) { return count >= COUNT_FIRST && count < COUNT_END; }

/* Pages near others should be counted like them: the last slide seen near here. */
static uint64_t guess(const struct bt_vcpu *v, uint64_t pc)
{
    uint64_t window = pc >> WINDOW_BITS;
    unsigned i = (unsigned)(window % ARRAY_LEN(v->slides));
    if (v->slides[i].window == window && countable(pc - v->slides[i].slide))
        return v->slides[i].slide;
    return (pc & ~0x0fffffffull) - 0x40000000;
}

static void remember(struct bt_vcpu *v, uint64_t pc, uint64_t slide)
{
    uint64_t window = pc >> WINDOW_BITS;
    unsigned i = (unsigned)(window % ARRAY_LEN(v->slides));
    v->slides[i].window = window;
    v->slides[i].slide = slide;
}

/* Is the code at `at` to be a sliding block's? Then its mode says so, and its slide is set. The
 * mode and slide it comes with are those of the block that leads here by a direct branch. A variant
 * that checks each access alone is of its block's kind, since look-ups do not know it. */
void bt_slide(struct bt_vcpu *v, struct bt_code_at *at)
{
    uint64_t *count = &v->bt->cache.page_at[bt_page_of(&v->bt->cache, at->bytes)];
    uint64_t page = at->pc & ~(uint64_t)(GMEM_PAGE_SIZE - 1);
    bool from_sliding = (at->mode & BT_MODE_SLIDING) != 0;
    const struct cpu_stops *stops = v->cpu->stops; /* are addresses */
    bool may = (at->mode & BT_MODE_USER) && (at->mode & BT_MODE_WIDTH) == INSN_MODE_64 &&
               (stops == NULL || stops->break_count == 0);
    if (!may || (!from_sliding && (at->mode & BT_MODE_SINGLE)))
        return;
    if (!from_sliding && (*count == 0 || *count == page)) {
        *count = page;
        return;
    }
    if (!(*count & SLIDING)) {
        uint64_t slide = from_sliding ? at->slide : guess(v, page);
        *count = (page - (countable(page - slide) ? slide : guess(v, page))) | SLIDING;
    }
    at->slide = page - (*count & ~SLIDING);
    at->mode |= BT_MODE_SLIDING;
    remember(v, page, at->slide);
}

/* There is no code of this page any more. */
void bt_slide_forget(struct bt *bt, uint64_t page) { bt->cache.page_at[page] = 0; }
