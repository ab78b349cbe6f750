#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SLOTS 64u

struct ring {
    uint32_t slot[SLOTS];
    size_t head, tail;
};

static bool ring_put(struct ring *r, uint32_t value)
{
    size_t next = (r->head + 1) % SLOTS;
    if (next == r->tail)
        return false; /* full: the writer decides what to drop */
    r->slot[r->head] = value;
    r->head = next;
    return true;
}

static bool ring_take(struct ring *r, uint32_t *value)
{
    if (r->tail == r->head)
        return false;
    *value = r->slot[r->tail];
    r->tail = (r->tail + 1) % SLOTS;
    return true;
}

int main(void)
{
    struct ring r = {0};
    uint32_t value;
    for (uint32_t i = 0; i < 10; i++)
        ring_put(&r, i * i);
    while (ring_take(&r, &value))
        printf("%u\n", value);
    return 0;
}
