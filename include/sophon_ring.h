/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sophon_ring.h: hands a face recognizer's events to sophon-uplink through a ring in shared memory.
 *
 * C99 or C++11, gcc or clang, 64-bit little-endian Linux (4.9 and up). Include this file; there is no library to link
 * and no macro to define first. The ring is a file on tmpfs, by default /dev/shm/sophonfog.events; sophon-uplink reads
 * it. Whoever of the two starts first waits for the other, whoever dies is resumed where it stopped.
 *
 *     sophon_ring *ring;
 *     int error = sophon_ring_open(&ring, "/dev/shm/sophonfog.events", 16u << 20);
 *     if (error != 0) { fprintf(stderr, "event ring: %s\n", strerror(-error)); return; }
 *
 *     sophon_event event;
 *     memset(&event, 0, sizeof event);
 *     event.identity_id = "1042";
 *     event.identity_name = "Li Lei";
 *     event.group_name = "Staff";
 *     event.timestamp_ms = now_in_milliseconds;
 *     event.score = 0.93f;
 *     event.device_type = -1;                        // not reported: 0 would be a gate
 *
 *     // The pictures are JPEGs in memory: one copy, into the ring.
 *     event.reg_pic = registered;  event.reg_pic_len = registered_bytes;
 *     event.spot_pic = spot;       event.spot_pic_len = spot_bytes;
 *     error = sophon_ring_publish(ring, &event);     // -ENOSPC: the ring is full, the event is counted as dropped
 *
 *     // Or the encoder writes the picture straight into the ring: no copy.
 *     void *room;
 *     error = sophon_ring_reserve(ring, &event, 0, 200000, NULL, &room);
 *     if (error == 0) {
 *         size_t bytes = encode_jpeg(frame, room, 200000);               // 0: it failed
 *         if (bytes > 0) sophon_ring_commit(ring, 0, bytes);
 *         else sophon_ring_abort(ring);
 *     }
 *
 *     // Further pictures and members at the top level (ABI 2).
 *     sophon_picture face;
 *     sophon_event2 more;
 *     sophon_event2_init(&more);                     // everything "none", device_type "not reported"
 *     more.event = event;
 *     more.top_json = "{\"device_id\": \"9d1c\"}";
 *     face.name = "recognize_face";  face.place = SOPHON_PLACE_EXT_DATA;
 *     face.data = cut_out;           face.len = cut_out_bytes;
 *     more.pictures = &face;         more.pictures_count = 1;
 *     error = sophon_ring_publish2(ring, &more);     // -EPROTONOSUPPORT: this sophon-uplink reads ABI 1 only
 *
 *     sophon_ring_close(ring);
 *
 * Threads: one at a time a ring. Nothing is locked inside; a recognizer with several threads puts its own mutex around
 * the calls (from sophon_ring_reserve to its commit or abort, all of it), or gives each thread a ring of its own.
 *
 * Cost of an event: its bytes are copied once (not at all between reserve and commit), a few atomic stores, one fence.
 * No lock, no allocation, and no system call but the one that wakes sophon-uplink when it sleeps, and at most ten times
 * a second a look at the ring's name. It never waits.
 *
 * Errors are returned as negative numbers of <errno.h>; `errno` itself means nothing after a call.
 *
 * fork: the child shares the ring's lock and must not use the ring (sophon_ring_close is allowed, and leaves the
 * parent's lock alone). As long as such a child lives, the ring stays locked, even if the parent dies: children that
 * outlive the recognizer must exec, which closes the ring's descriptor.
 *
 * Death: a process killed at any moment, also inside any of these functions, leaves a good ring behind. What was
 * published is delivered, what was not is not there; the next sophon_ring_open takes the ring over.
 *
 * A name that is removed: where something takes the ring's file away under a recognizer that works (a cleaning script,
 * RemoveIPC at the logout of its user), the next publish or reserve makes a new one of the same capacity. Events that
 * sophon-uplink has not read go along, or it reads the old ring to its end, where it has that open. Once this costs the
 * time of sophon_ring_open. Where no new ring can be made, the old one is used on, and it is tried again after 10 s.
 *
 * Users: the ring is its user's alone (mode 0600), and in /dev/shm nobody else but root may remove it. So a recognizer that
 * was tried once as root and is then started as its own user gets -EACCES from sophon_ring_open, until root removes what
 * it left there: `rm /dev/shm/sophonfog.events*`. Root finds the ring of another user, and sets it aside as PATH.bad.
 *
 * Versions: a ring begins as ABI 1, which every sophon-uplink reads, and becomes ABI 2 with the first event that needs
 * it. So a recognizer that uses only sophon_event works with every sophon-uplink. The first event of ABI 2 is refused
 * while a sophon-uplink is attached that reads ABI 1 only; once the ring is ABI 2, such a one refuses the ring and says so
 * in its log. Events that are in the ring then stay in it.
 *
 * Growth: sophon_event stays as it is for ever. sophon_event2 grows at its end, and its member `size` says how much of
 * it the caller knows: what it does not know counts as 0. Set it with sophon_event2_init(). An event that a sophon-uplink
 * could misread makes a new ABI version, and the ring becomes one of that version as told above.
 *
 * Waking: sophon-uplink sleeps on a FIFO beside the ring, `path`.wake, which sophon_ring_open makes for this user alone (mode
 * 0600) and leaves there. It is open for reading too, so no SIGPIPE comes of it. Where it cannot be made, or something else
 * has its name, a futex in the ring does the same, some microseconds later.
 *
 * The layout is in docs/ring-abi.md, byte by byte; it is asserted below.
 */
#ifndef SOPHON_RING_H
#define SOPHON_RING_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__linux__) || !defined(__GNUC__)
#error "sophon_ring.h needs Linux and gcc or clang"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sophon_ring.h: the ring is for little-endian machines only"
#endif

/* Static functions that a program does not use must not be a warning to it. */
#define SOPHON_RING_FUNCTION_ static inline __attribute__((__unused__))

#ifdef __cplusplus
extern "C" {
#endif

/* The newest version of the layout that is written here. sophon-uplink refuses a ring of a version that it does not know. */
#define SOPHON_RING_ABI_VERSION 2u

/* The most named pictures of an event, and the longest name in bytes. */
#define SOPHON_RING_MAX_PICTURES 16u
#define SOPHON_RING_MAX_NAME 64u

/* An open ring. Its members are nobody's business but this header's. */
typedef struct sophon_ring sophon_ring;

/* One recognized face. Everything that is pointed to is read during the call only, and may be freed after it. */
typedef struct sophon_event {
    const char *identity_id;            /* UTF-8 (not checked here); NULL counts as "" in every string */
    const char *identity_name;
    const char *group_name;             /* NULL or "": group_id is reported */
    const char *group_id;
    const char *device_ip;              /* NULL or "": not reported */
    const char *ext_json;               /* NULL, or a JSON object to merge into ext_data */
    int64_t     timestamp_ms;           /* Unix epoch, UTC */
    float       score;                  /* finite */
    int32_t     person_type;            /* 1..5; 0: not reported */
    int32_t     device_type;            /* 0..4; -1: not reported */
    const void *reg_pic;  size_t reg_pic_len;    /* JPEG; NULL/0: none */
    const void *spot_pic; size_t spot_pic_len;
} sophon_event;

/* Where a named picture or member goes in the body. */
#define SOPHON_PLACE_TOP 0              /* beside reg_pic */
#define SOPHON_PLACE_EXT_DATA 1         /* beside spot_pic */

/* A picture with a name of its own. */
typedef struct sophon_picture {
    const char *name;                   /* 1 to 64 of the characters A-Z a-z 0-9 _ - . */
    int32_t     place;                  /* SOPHON_PLACE_... */
    const void *data;                   /* JPEG; ignored by sophon_ring_reserve2 */
    size_t      len;                    /* its bytes; for sophon_ring_reserve2 the most that it may have; 0: left out */
} sophon_picture;

/* A recognized face with more to it. Begin with sophon_event2_init(). */
typedef struct sophon_event2 {
    size_t       size;                  /* sizeof(sophon_event2) of the caller */
    sophon_event event;
    const char  *top_json;              /* NULL, or a JSON object: members at the top level; the documented keys win */
    const sophon_picture *pictures;     /* NULL, or an array: no two with the same name at the same place, no documented key */
    size_t       pictures_count;        /* 0 to 16 */
} sophon_event2;

/*
 * Makes the ring at `path`, or takes over the one that is there: events that sophon-uplink has not read yet are kept.
 *
 * ring      set to the ring, to NULL on an error.
 * path      the ring's file, in a folder that is there, on tmpfs. `path`.new, `path`.bad and `path`.wake are used beside it.
 * capacity  bytes for events, 0 to 1 GiB; rounded up to a power of two and to 64 KiB at least. One event may fill half
 *           of it. A ring that is taken over with events in it keeps the capacity that it has. All of it is allocated
 *           here, so that a full tmpfs is an error of this call and never a SIGBUS of a later one.
 *
 * A file that is there and is no good ring, or is neither this user's nor root's, is renamed to `path`.bad.
 *
 * 0, or -EINVAL (NULL, empty path, capacity above 1 GiB, a path that is a folder, a device or a symbolic link),
 * -EBUSY (another live producer, here or in another process, holds the ring or is making it), -ENOSPC (no room on the
 * tmpfs), -EACCES (the folder may not be written, or the ring is another user's: see "Users" above), or another -errno
 * of a system call (-ENOENT, -ENOMEM...). On an error nothing is left open.
 *
 * Makes system calls, and touches the disk if `path` is on one. Never waits for another process.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_open(sophon_ring **ring, const char *path, uint64_t capacity);

/*
 * Publishes an event, copying its strings and pictures into the ring.
 *
 * 0, or
 * -EINVAL    ring or event is NULL, score is not finite, person_type is not 0..5, device_type is not -1..4, or a picture
 *            is NULL and its length is not 0. Nothing was written.
 * -EMSGSIZE  the event is larger than half the ring: it will never fit. Nothing was written, it is not counted.
 * -ENOSPC    the ring is full, because sophon-uplink is not running or does not keep up. The event is counted as
 *            dropped: go on with the next one.
 * -EBUSY     a reservation is open.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_publish(sophon_ring *ring, const sophon_event *event);

/*
 * Makes room in the ring for an event whose pictures are still to be written, for instance by a JPEG encoder.
 * Everything else of `event` is copied now; its pictures (pointers and lengths) are ignored.
 *
 * reg_pic_max, spot_pic_max   the most bytes that each picture may have; 0: there will be none.
 * reg_pic, spot_pic           set to where to write, aligned to 8 bytes, valid until commit, abort or close; set to
 *                             NULL where the maximum is 0, where the argument itself may be NULL too. Writing beyond
 *                             the maximum damages the ring.
 *
 * Nothing is visible to sophon-uplink before sophon_ring_commit. Errors as of sophon_ring_publish (the maxima count for
 * -EMSGSIZE and -ENOSPC), and -EINVAL if there is a maximum and no place for its pointer. After an error both pointers
 * are NULL, and there is no reservation but the one that was open before (-EBUSY), which stays as it was.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_reserve(sophon_ring *ring, const sophon_event *event, size_t reg_pic_max,
                                              size_t spot_pic_max, void **reg_pic, void **spot_pic);

/*
 * Publishes what was reserved, with pictures of these lengths (0: without that picture). What was reserved beyond them
 * is given back, but for what lies between a shortened registered picture and a spot picture: that goes back to the
 * ring with the event.
 *
 * 0, or -EINVAL: no reservation is open, or a length is more than the maximum reserved; then the reservation stays
 * open.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_commit(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len);

/* Makes `event` one of which nothing is reported: all members 0, `size` set, device_type -1. Does nothing for NULL. */
SOPHON_RING_FUNCTION_ void sophon_event2_init(sophon_event2 *event);

/*
 * The same as sophon_ring_publish for an event with further pictures or members. Errors as there, and
 *
 * -EINVAL    also: `size` is smaller than the first sophon_event2 was, more than 16 pictures, a picture without data, a
 *            name or a place that is not allowed, the same name twice at one place, or a key of the documented event
 *            (identity_id, identity_name, group_name, reg_pic, timestamp, score, ext_data at the top; device_ip,
 *            person_type, device_type, spot_pic in ext_data). Nothing was written.
 * -EPROTONOSUPPORT   the sophon-uplink that reads this ring knows ABI 1 only. Nothing was written, and the event is not
 *            counted as dropped: update sophon-uplink, or publish the event without what is new. An event without
 *            top_json and without named pictures is never refused for that.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_publish2(sophon_ring *ring, const sophon_event2 *event);

/*
 * The same as sophon_ring_reserve. The lengths in `event`, of reg_pic, spot_pic and each named picture, are the most bytes
 * that each may have; its pointers to pictures are ignored.
 *
 * reg_pic, spot_pic   as of sophon_ring_reserve.
 * rooms               an array of pictures_count pointers, each set as those two; may be NULL where no named picture has
 *                     a maximum.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_reserve2(sophon_ring *ring, const sophon_event2 *event, void **reg_pic,
                                               void **spot_pic, void **rooms);

/*
 * The same as sophon_ring_commit. `lens` is an array with the length of each named picture, in the order of the
 * reservation, or NULL: without any of them (which is what sophon_ring_commit does).
 */
SOPHON_RING_FUNCTION_ int sophon_ring_commit2(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len,
                                              const size_t *lens);

/* Gives a reservation back, as if it had never been made. Does nothing where none is open, or ring is NULL. */
SOPHON_RING_FUNCTION_ void sophon_ring_abort(sophon_ring *ring);

/* The number of events refused with -ENOSPC since the ring was made, by all its producers. 0 if ring is NULL. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_dropped(const sophon_ring *ring);

/*
 * Closes the ring: what was published stays in the file for sophon-uplink, an open reservation is given back, another
 * producer may open the ring. `ring` is freed. Does nothing if it is NULL.
 */
SOPHON_RING_FUNCTION_ void sophon_ring_close(sophon_ring *ring);

/* ------------------------------------------------------------------------------------------------------------------ *
 * From here on it is private. Every name ends in _ and may change with any release.
 * ------------------------------------------------------------------------------------------------------------------ */

#ifdef __cplusplus
#define SOPHON_RING_NULL_ nullptr
#define SOPHON_RING_CAST_(type, value) static_cast<type>(value)
#define SOPHON_RING_ASSERT_(name, condition) static_assert(condition, #name)
#else
#define SOPHON_RING_NULL_ NULL
#define SOPHON_RING_CAST_(type, value) ((type)(value))
/* _Static_assert is not C99, and compilers say so: an array of -1 elements is an error in any C. */
#define SOPHON_RING_ASSERT_(name, condition) typedef char sophon_ring_assert_##name##_[(condition) ? 1 : -1]
#endif

#define SOPHON_RING_MAGIC_ UINT64_C(0x474E4952484F5053)
#define SOPHON_RING_HEADER_SIZE_ 4096u
#define SOPHON_RING_MIN_CAPACITY_ (UINT64_C(1) << 16)
#define SOPHON_RING_MAX_CAPACITY_ (UINT64_C(1) << 30)
#define SOPHON_RING_EVENT_ 1u
#define SOPHON_RING_PADDING_ 2u
#define SOPHON_RING_FILLER_ 0u
#define SOPHON_RING_FIRST_TEXT_ 1u
#define SOPHON_RING_TEXTS_ 6u
#define SOPHON_RING_REG_PIC_ 7u
#define SOPHON_RING_SPOT_PIC_ 8u
#define SOPHON_RING_TOP_JSON_ 9u
#define SOPHON_RING_NAMES_ 10u
#define SOPHON_RING_NAMED_PIC_ 16u      /* of the first name; the next numbers are those of the next names */
#define SOPHON_RING_OLDEST_ABI_ 1u

/* The first page of the file. The producer's words and the consumer's stand 128 bytes apart. */
struct sophon_ring_header_ {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t header_size;
    uint64_t capacity;
    uint8_t  id[16];
    uint8_t  reserved_0[0x080 - 0x028];
    uint64_t head;                      /* the producer's words */
    uint64_t sequence;
    uint64_t dropped;
    uint32_t producer_pid;
    uint32_t fifo_pid;                  /* producer_pid, if that one writes to the FIFO */
    uint32_t publications;
    uint32_t reserved_1;
    uint64_t fifo_inode;                /* which file the FIFO is */
    uint8_t  reserved_2[0x100 - 0x0B0];
    uint64_t tail;                      /* the consumer's words */
    uint64_t consumed;
    uint32_t waiting;                   /* not 0 while it may be asleep: 1 on the futex, 2 on the FIFO */
    uint32_t consumer_pid;
    uint64_t resyncs;
    uint32_t consumer_abi;              /* the newest version that it reads */
    uint32_t consumer_abi_pid;          /* whose word that is: consumer_pid, or it is an older one's */
    uint8_t  reserved_3[0x1000 - 0x128];
};

struct sophon_ring_record_ {
    uint32_t length;
    uint32_t kind;
    uint64_t sequence;
    int64_t  timestamp_ms;
    float    score;
    int32_t  person_type;
    int32_t  device_type;
    uint32_t reserved;
};

/* A section's first 8 bytes; a padding record has no others. */
struct sophon_ring_section_ {
    uint32_t kind;
    uint32_t length;
};

#define SOPHON_RING_AT_(type, member, offset) \
    SOPHON_RING_ASSERT_(type##_##member, offsetof(struct sophon_ring_##type##_, member) == (offset))
SOPHON_RING_ASSERT_(pointers_are_64_bit, sizeof(void *) == 8 && sizeof(size_t) == 8);
SOPHON_RING_ASSERT_(float_is_32_bit, sizeof(float) == 4);
SOPHON_RING_ASSERT_(header_is_a_page, sizeof(struct sophon_ring_header_) == SOPHON_RING_HEADER_SIZE_);
SOPHON_RING_AT_(header, magic, 0x000);
SOPHON_RING_AT_(header, abi_version, 0x008);
SOPHON_RING_AT_(header, header_size, 0x00C);
SOPHON_RING_AT_(header, capacity, 0x010);
SOPHON_RING_AT_(header, id, 0x018);
SOPHON_RING_AT_(header, head, 0x080);
SOPHON_RING_AT_(header, sequence, 0x088);
SOPHON_RING_AT_(header, dropped, 0x090);
SOPHON_RING_AT_(header, producer_pid, 0x098);
SOPHON_RING_AT_(header, fifo_pid, 0x09C);
SOPHON_RING_AT_(header, publications, 0x0A0);
SOPHON_RING_AT_(header, fifo_inode, 0x0A8);
SOPHON_RING_AT_(header, tail, 0x100);
SOPHON_RING_AT_(header, consumed, 0x108);
SOPHON_RING_AT_(header, waiting, 0x110);
SOPHON_RING_AT_(header, consumer_pid, 0x114);
SOPHON_RING_AT_(header, resyncs, 0x118);
SOPHON_RING_AT_(header, consumer_abi, 0x120);
SOPHON_RING_AT_(header, consumer_abi_pid, 0x124);
SOPHON_RING_ASSERT_(record_is_40_bytes, sizeof(struct sophon_ring_record_) == 40);
SOPHON_RING_AT_(record, length, 0);
SOPHON_RING_AT_(record, kind, 4);
SOPHON_RING_AT_(record, sequence, 8);
SOPHON_RING_AT_(record, timestamp_ms, 16);
SOPHON_RING_AT_(record, score, 24);
SOPHON_RING_AT_(record, person_type, 28);
SOPHON_RING_AT_(record, device_type, 32);
SOPHON_RING_AT_(record, reserved, 36);
SOPHON_RING_ASSERT_(section_is_8_bytes, sizeof(struct sophon_ring_section_) == 8);
SOPHON_RING_AT_(section, kind, 0);
SOPHON_RING_AT_(section, length, 4);

/* What strict -std=c99 and old headers hide. */
#ifdef O_CLOEXEC
#define SOPHON_RING_O_CLOEXEC_ O_CLOEXEC
#else
#define SOPHON_RING_O_CLOEXEC_ 02000000
#endif
#ifdef O_PATH
#define SOPHON_RING_O_PATH_ O_PATH
#else
#define SOPHON_RING_O_PATH_ 010000000
#endif
#if defined(O_NOFOLLOW)
#define SOPHON_RING_O_NOFOLLOW_ O_NOFOLLOW
#elif defined(__aarch64__) || defined(__powerpc64__)
#define SOPHON_RING_O_NOFOLLOW_ 0100000
#elif defined(__x86_64__) || defined(__riscv) || defined(__loongarch__)
#define SOPHON_RING_O_NOFOLLOW_ 0400000
#else
#error "sophon_ring.h: unknown machine: define _GNU_SOURCE before any #include"
#endif
#define SOPHON_RING_F_OFD_SETLK_ 37
#define SOPHON_RING_CLOCK_REALTIME_ 0
#define SOPHON_RING_CLOCK_PROCESS_ 2
#define SOPHON_RING_CLOCK_COARSE_ 6
#define SOPHON_RING_CLOCK_BOOTTIME_ 7
#define SOPHON_RING_GRND_NONBLOCK_ 1
#define SOPHON_RING_FUTEX_WAKE_ 1
#define SOPHON_RING_ON_FIFO_ 2u
#if defined(SYS_getrandom)
#define SOPHON_RING_SYS_GETRANDOM_ SYS_getrandom
#elif defined(__x86_64__)
#define SOPHON_RING_SYS_GETRANDOM_ 318
#else
#define SOPHON_RING_SYS_GETRANDOM_ 278
#endif

/* The C library's syscall(), under a name of our own: its prototype comes and goes with the feature-test macros. */
extern long sophon_ring_syscall_(long number, ...) __asm__("syscall");

/* The same for clock_gettime(), which asks the kernel without a system call, and for its struct timespec. */
struct sophon_ring_time_ {
    int64_t seconds;
    int64_t nanoseconds;
};
extern int sophon_ring_clock_gettime_(int clock, struct sophon_ring_time_ *now) __asm__("clock_gettime");

/* Between two looks at the ring's name, and after a new ring could not be made, in milliseconds. */
#define SOPHON_RING_LOOK_ 100
#define SOPHON_RING_LOOK_LATER_ 10000

/* Returned by the steps of sophon_ring_open where another process was faster: look again. Not an errno. */
#define SOPHON_RING_AGAIN_ (-100000)
#define SOPHON_RING_TRIES_ 100

struct sophon_ring {
    struct sophon_ring_header_ *header; /* the mapping */
    unsigned char *data;                /* the mapping behind the header */
    int fd;                             /* carries the lock */
    int fifo;                           /* wakes sophon-uplink; -1: only the futex does */
    int reserved;                       /* a reservation is open */
    uint64_t capacity;
    uint64_t head;                      /* these four are ours; the header has copies that are never read back */
    uint64_t sequence;
    uint64_t dropped;
    uint32_t publications;
    uint32_t padding;                   /* of the reservation: bytes of padding record before its record */
    uint32_t pictures;                  /* of the reservation: registered picture, spot picture, named ones */
    struct sophon_ring_room_ {
        uint32_t at;                    /* offset in the record of the section, if there is one */
        uint32_t max;
    } room[2 + SOPHON_RING_MAX_PICTURES];
    char *path;                         /* as it was opened */
    char *spare;                        /* room for it and a suffix */
    uint64_t folder[2];                 /* device and number of the folder that it is in */
    int64_t look_at;                    /* when to look at the name again, in milliseconds of the coarse clock */
};

SOPHON_RING_FUNCTION_ uint64_t sophon_ring_round_up_(uint64_t length)
{
    return (length + 7) & ~UINT64_C(7);
}

/* Bytes of a section of `length` bytes; an empty one is left out. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_section_size_(uint64_t length)
{
    return length == 0 ? 0 : sizeof(struct sophon_ring_section_) + sophon_ring_round_up_(length);
}

/* Writes a section's first 8 bytes and clears its last ones, which the bytes themselves may or may not overwrite. */
SOPHON_RING_FUNCTION_ void sophon_ring_put_section_(unsigned char *at, uint32_t kind, uint64_t length)
{
    struct sophon_ring_section_ section;
    section.kind = kind;
    section.length = SOPHON_RING_CAST_(uint32_t, length);
    memcpy(at, &section, sizeof section);
    memset(at + sizeof section + length, 0, sophon_ring_round_up_(length) - length);
}

/* The record that is being written. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_record_at_(const sophon_ring *ring)
{
    return ring->data + ((ring->head + ring->padding) & (ring->capacity - 1));
}

/* Wakes the consumer if it may sleep: step 6 of "Publishing". */
SOPHON_RING_FUNCTION_ void sophon_ring_wake_(sophon_ring *ring)
{
    uint32_t waiting;
    ring->publications++;
    /* Release: who sees this number sees the new head. Relaxed, it could be seen first, and be slept upon. */
    __atomic_store_n(&ring->header->publications, ring->publications, __ATOMIC_RELEASE);
    /* Either we see `waiting`, or the consumer, with its fence between that and its last look, sees the number. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__) && __GNUC__ >= 11
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#if defined(__SANITIZE_THREAD__) && !defined(__clang__) && __GNUC__ >= 11
#pragma GCC diagnostic pop
#endif
    waiting = __atomic_load_n(&ring->header->waiting, __ATOMIC_RELAXED);
    if (waiting == SOPHON_RING_ON_FIFO_ && ring->fifo >= 0) {
        /* Full: as many wake-ups are there to be read already. */
        if (write(ring->fifo, "", 1) < 0)
            return;
    } else if (waiting != 0) {
        sophon_ring_syscall_(SYS_futex, &ring->header->publications, SOPHON_RING_FUTEX_WAKE_, INT32_MAX,
                             SOPHON_RING_NULL_, SOPHON_RING_NULL_, 0);
    }
}

/*
 * Counts an event that found no room. The consumer is shown `head` again where it cannot have it: its `tail` makes no sense, or
 * something overwrote ours, and it waits for what we have published already.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_refuse_(sophon_ring *ring, uint64_t tail)
{
    ring->dropped++;
    __atomic_store_n(&ring->header->dropped, ring->dropped, __ATOMIC_RELAXED);
    if (ring->head - tail > ring->capacity || tail % 8 != 0
        || __atomic_load_n(&ring->header->head, __ATOMIC_RELAXED) != ring->head) {
        __atomic_store_n(&ring->header->head, ring->head, __ATOMIC_RELEASE);
        sophon_ring_wake_(ring);
    }
    return -ENOSPC;
}

SOPHON_RING_FUNCTION_ void sophon_ring_look_at_name_(sophon_ring *ring);
SOPHON_RING_FUNCTION_ int sophon_ring_become_2_(sophon_ring *ring);

/* What is to be written of an event: texts by their sections' kinds, the names, and how long each picture may be. */
struct sophon_ring_plan_ {
    const char *text[SOPHON_RING_TEXTS_ + 1];
    size_t      text_length[SOPHON_RING_TEXTS_ + 1];
    const sophon_picture *named;
    size_t      names;                  /* how many */
    size_t      names_length;           /* of their section */
    size_t      max[2 + SOPHON_RING_MAX_PICTURES];
    int         needs_2;
};

/* Whether `event` has as many bytes of an event of version 2 as the first one had. */
SOPHON_RING_FUNCTION_ int sophon_ring_is_event2_(const sophon_event2 *event)
{
    const size_t first = offsetof(sophon_event2, pictures_count) + sizeof event->pictures_count;
    return event != SOPHON_RING_NULL_ && event->size >= first;
}

/* The length of a picture's name; 0 if it may not be one. */
SOPHON_RING_FUNCTION_ size_t sophon_ring_name_length_(const sophon_picture *picture)
{
    static const char *const top[] = { "identity_id", "identity_name", "group_name", "reg_pic",
                                       "timestamp", "score", "ext_data", SOPHON_RING_NULL_ };
    static const char *const ext_data[] = { "device_ip", "person_type", "device_type", "spot_pic", SOPHON_RING_NULL_ };
    const char *const *key = picture->place == SOPHON_PLACE_TOP ? top : ext_data;
    const char *const name = picture->name;
    size_t length = 0;
    if (name == SOPHON_RING_NULL_ || (picture->place != SOPHON_PLACE_TOP && picture->place != SOPHON_PLACE_EXT_DATA))
        return 0;
    for (; name[length] != '\0'; length++) {
        const char c = name[length];
        if (length == SOPHON_RING_MAX_NAME || !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                                                || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'))
            return 0;
    }
    for (; *key != SOPHON_RING_NULL_; key++)
        if (strcmp(*key, name) == 0)
            return 0;
    return length;
}

/* What an event of version 1 has to be written; its pictures have at most these lengths. */
SOPHON_RING_FUNCTION_ void sophon_ring_plan_event_(struct sophon_ring_plan_ *plan, const sophon_event *event,
                                                   size_t reg_pic_max, size_t spot_pic_max)
{
    memset(plan, 0, sizeof *plan);
    plan->text[0] = event->identity_id;
    plan->text[1] = event->identity_name;
    plan->text[2] = event->group_name;
    plan->text[3] = event->group_id;
    plan->text[4] = event->device_ip;
    plan->text[5] = event->ext_json;
    plan->max[0] = reg_pic_max;
    plan->max[1] = spot_pic_max;
}

/* The same of version 2. */
SOPHON_RING_FUNCTION_ int sophon_ring_plan_event2_(struct sophon_ring_plan_ *plan, const sophon_event2 *event)
{
    size_t i, j;
    sophon_ring_plan_event_(plan, &event->event, event->event.reg_pic_len, event->event.spot_pic_len);
    plan->text[SOPHON_RING_TEXTS_] = event->top_json;
    if (event->pictures_count > SOPHON_RING_MAX_PICTURES
        || (event->pictures == SOPHON_RING_NULL_ && event->pictures_count > 0))
        return -EINVAL;
    plan->named = event->pictures;
    plan->names = event->pictures_count;
    for (i = 0; i < plan->names; i++) {
        const size_t length = sophon_ring_name_length_(&plan->named[i]);
        if (length == 0)
            return -EINVAL;
        for (j = 0; j < i; j++)
            if (plan->named[i].place == plan->named[j].place && strcmp(plan->named[i].name, plan->named[j].name) == 0)
                return -EINVAL;
        plan->names_length += 2 + length;
        plan->max[2 + i] = plan->named[i].len;
    }
    plan->needs_2 = plan->names > 0 || (event->top_json != SOPHON_RING_NULL_ && *event->top_json != '\0');
    return 0;
}

/* Bytes of the record, at most; 0 if they are more than `half`. Each length by itself first: then no sum can overflow. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_measure_(struct sophon_ring_plan_ *plan, uint64_t half)
{
    uint64_t need = sizeof(struct sophon_ring_record_) + sophon_ring_section_size_(plan->names_length);
    size_t i;
    for (i = 0; i < 2 + plan->names; i++) {
        if (plan->max[i] > half)
            return 0;
        need += sophon_ring_section_size_(plan->max[i]);
    }
    for (i = 0; i <= SOPHON_RING_TEXTS_; i++) {
        plan->text_length[i] = plan->text[i] == SOPHON_RING_NULL_ ? 0 : strlen(plan->text[i]);
        if (plan->text_length[i] > half)
            return 0;
        need += sophon_ring_section_size_(plan->text_length[i]);
    }
    return need > half ? 0 : need;
}

/* Writes the sections before the pictures, and returns where they end. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_put_texts_(unsigned char *at, const struct sophon_ring_plan_ *plan)
{
    size_t i;
    for (i = 0; i <= SOPHON_RING_TEXTS_; i++) {
        const size_t length = plan->text_length[i];
        const uint32_t kind = i == SOPHON_RING_TEXTS_ ? SOPHON_RING_TOP_JSON_
                                                      : SOPHON_RING_FIRST_TEXT_ + SOPHON_RING_CAST_(uint32_t, i);
        if (length == 0)
            continue;
        sophon_ring_put_section_(at, kind, length);
        memcpy(at + sizeof(struct sophon_ring_section_), plan->text[i], length);
        at += sophon_ring_section_size_(length);
    }
    if (plan->names > 0) {
        unsigned char *name = at + sizeof(struct sophon_ring_section_);
        sophon_ring_put_section_(at, SOPHON_RING_NAMES_, plan->names_length);
        for (i = 0; i < plan->names; i++) {
            const size_t length = strlen(plan->named[i].name);
            *name++ = SOPHON_RING_CAST_(unsigned char, plan->named[i].place);
            *name++ = SOPHON_RING_CAST_(unsigned char, length);
            memcpy(name, plan->named[i].name, length);
            name += length;
        }
        at += sophon_ring_section_size_(plan->names_length);
    }
    return at;
}

/*
 * Checks an event, finds room for it, and writes all of it but its pictures: steps 1 to 4 of "Publishing" in the ABI.
 * The reservation that it leaves is invisible to the consumer.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_place_(sophon_ring *ring, const sophon_event *event,
                                             struct sophon_ring_plan_ *plan)
{
    struct sophon_ring_record_ record;
    unsigned char *at;
    uint64_t need, left, tail, used, padding;
    uint32_t score_bits;
    size_t i;
    int error;

    /* The bits, because isfinite() is a constant under -ffast-math. */
    memcpy(&score_bits, &event->score, sizeof score_bits);
    if ((score_bits & 0x7F800000u) == 0x7F800000u || event->person_type < 0 || event->person_type > 5
        || event->device_type < -1 || event->device_type > 4)
        return -EINVAL;
    if (ring->reserved)
        return -EBUSY;
    need = sophon_ring_measure_(plan, ring->capacity / 2);      /* also that of a ring that takes this one's place */
    if (need == 0)
        return -EMSGSIZE;

    sophon_ring_look_at_name_(ring);
    error = plan->needs_2 ? sophon_ring_become_2_(ring) : 0;
    if (error != 0)
        return error;
    left = ring->capacity - (ring->head & (ring->capacity - 1));
    padding = need > left ? left : 0;
    tail = __atomic_load_n(&ring->header->tail, __ATOMIC_ACQUIRE);
    used = ring->head - tail;
    if (used > ring->capacity || tail % 8 != 0 || padding + need > ring->capacity - used)
        return sophon_ring_refuse_(ring, tail);

    if (padding > 0) {
        record.length = SOPHON_RING_CAST_(uint32_t, padding);
        record.kind = SOPHON_RING_PADDING_;
        ring->padding = 0;
        memcpy(sophon_ring_record_at_(ring), &record, 8);
    }
    ring->padding = SOPHON_RING_CAST_(uint32_t, padding);

    at = sophon_ring_record_at_(ring);
    record.length = 0;                  /* it and the sequence number come with the commit */
    record.kind = SOPHON_RING_EVENT_;
    record.sequence = 0;
    record.timestamp_ms = event->timestamp_ms;
    record.score = event->score;
    record.person_type = event->person_type;
    record.device_type = event->device_type;
    record.reserved = 0;
    memcpy(at, &record, sizeof record);
    at = sophon_ring_put_texts_(at + sizeof record, plan);
    ring->pictures = SOPHON_RING_CAST_(uint32_t, 2 + plan->names);
    for (i = 0; i < ring->pictures; i++) {
        ring->room[i].at = SOPHON_RING_CAST_(uint32_t, at - sophon_ring_record_at_(ring));
        ring->room[i].max = SOPHON_RING_CAST_(uint32_t, plan->max[i]);
        at += sophon_ring_section_size_(plan->max[i]);
    }
    ring->reserved = 1;
    return 0;
}

/* Where to write picture number `i` of the reservation; NULL where there is to be none. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_room_(const sophon_ring *ring, size_t i)
{
    return ring->room[i].max == 0 ? SOPHON_RING_NULL_ : sophon_ring_record_at_(ring) + ring->room[i].at
                                                          + sizeof(struct sophon_ring_section_);
}

/* Whether an event of version 1 has each picture that it says it has. */
SOPHON_RING_FUNCTION_ int sophon_ring_has_pictures_(const sophon_event *event)
{
    return (event->reg_pic != SOPHON_RING_NULL_ || event->reg_pic_len == 0)
        && (event->spot_pic != SOPHON_RING_NULL_ || event->spot_pic_len == 0);
}

/* Copies a picture into its room. */
SOPHON_RING_FUNCTION_ void sophon_ring_put_picture_(const sophon_ring *ring, size_t i, const void *data, size_t length)
{
    if (length > 0)
        memcpy(sophon_ring_room_(ring, i), data, length);
}

SOPHON_RING_FUNCTION_ int sophon_ring_publish(sophon_ring *ring, const sophon_event *event)
{
    struct sophon_ring_plan_ plan;
    int error;
    if (ring == SOPHON_RING_NULL_ || event == SOPHON_RING_NULL_ || !sophon_ring_has_pictures_(event))
        return -EINVAL;
    sophon_ring_plan_event_(&plan, event, event->reg_pic_len, event->spot_pic_len);
    error = sophon_ring_place_(ring, event, &plan);
    if (error != 0)
        return error;
    sophon_ring_put_picture_(ring, 0, event->reg_pic, event->reg_pic_len);
    sophon_ring_put_picture_(ring, 1, event->spot_pic, event->spot_pic_len);
    return sophon_ring_commit(ring, event->reg_pic_len, event->spot_pic_len);
}

SOPHON_RING_FUNCTION_ int sophon_ring_publish2(sophon_ring *ring, const sophon_event2 *event)
{
    struct sophon_ring_plan_ plan;
    size_t i;
    int error;
    if (ring == SOPHON_RING_NULL_ || !sophon_ring_is_event2_(event) || !sophon_ring_has_pictures_(&event->event))
        return -EINVAL;
    error = sophon_ring_plan_event2_(&plan, event);
    for (i = 0; i < plan.names && error == 0; i++)
        if (plan.named[i].data == SOPHON_RING_NULL_ && plan.named[i].len > 0)
            error = -EINVAL;
    if (error == 0)
        error = sophon_ring_place_(ring, &event->event, &plan);
    if (error != 0)
        return error;
    sophon_ring_put_picture_(ring, 0, event->event.reg_pic, event->event.reg_pic_len);
    sophon_ring_put_picture_(ring, 1, event->event.spot_pic, event->event.spot_pic_len);
    for (i = 0; i < plan.names; i++)
        sophon_ring_put_picture_(ring, 2 + i, plan.named[i].data, plan.named[i].len);
    return sophon_ring_commit2(ring, event->event.reg_pic_len, event->event.spot_pic_len, plan.max + 2);
}

SOPHON_RING_FUNCTION_ int sophon_ring_reserve(sophon_ring *ring, const sophon_event *event, size_t reg_pic_max,
                                              size_t spot_pic_max, void **reg_pic, void **spot_pic)
{
    struct sophon_ring_plan_ plan;
    int error;
    if (reg_pic != SOPHON_RING_NULL_)
        *reg_pic = SOPHON_RING_NULL_;
    if (spot_pic != SOPHON_RING_NULL_)
        *spot_pic = SOPHON_RING_NULL_;
    if (ring == SOPHON_RING_NULL_ || event == SOPHON_RING_NULL_ || (reg_pic == SOPHON_RING_NULL_ && reg_pic_max > 0)
        || (spot_pic == SOPHON_RING_NULL_ && spot_pic_max > 0))
        return -EINVAL;
    sophon_ring_plan_event_(&plan, event, reg_pic_max, spot_pic_max);
    error = sophon_ring_place_(ring, event, &plan);
    if (error != 0)
        return error;
    if (reg_pic != SOPHON_RING_NULL_)
        *reg_pic = sophon_ring_room_(ring, 0);
    if (spot_pic != SOPHON_RING_NULL_)
        *spot_pic = sophon_ring_room_(ring, 1);
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_reserve2(sophon_ring *ring, const sophon_event2 *event, void **reg_pic,
                                               void **spot_pic, void **rooms)
{
    struct sophon_ring_plan_ plan;
    void **target[2];
    size_t i;
    int error;
    target[0] = reg_pic;
    target[1] = spot_pic;
    for (i = 0; i < 2; i++)
        if (target[i] != SOPHON_RING_NULL_)
            *target[i] = SOPHON_RING_NULL_;
    if (ring == SOPHON_RING_NULL_ || !sophon_ring_is_event2_(event))
        return -EINVAL;
    error = sophon_ring_plan_event2_(&plan, event);
    for (i = 0; i < plan.names && error == 0 && rooms != SOPHON_RING_NULL_; i++)
        rooms[i] = SOPHON_RING_NULL_;
    for (i = 0; i < 2 + plan.names && error == 0; i++)
        if (plan.max[i] > 0 && (i < 2 ? target[i] : rooms) == SOPHON_RING_NULL_)
            error = -EINVAL;
    if (error == 0)
        error = sophon_ring_place_(ring, &event->event, &plan);
    if (error != 0)
        return error;
    for (i = 0; i < 2; i++)
        if (target[i] != SOPHON_RING_NULL_)
            *target[i] = sophon_ring_room_(ring, i);
    for (i = 0; i < plan.names && rooms != SOPHON_RING_NULL_; i++)
        rooms[i] = sophon_ring_room_(ring, 2 + i);
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_commit(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len)
{
    return sophon_ring_commit2(ring, reg_pic_len, spot_pic_len, SOPHON_RING_NULL_);
}

SOPHON_RING_FUNCTION_ int sophon_ring_commit2(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len,
                                              const size_t *lens)
{
    size_t used[2 + SOPHON_RING_MAX_PICTURES];
    unsigned char *record;
    uint32_t length, i;
    uint64_t sequence;
    if (ring == SOPHON_RING_NULL_ || !ring->reserved)
        return -EINVAL;
    for (i = 0; i < ring->pictures; i++) {
        used[i] = i == 0 ? reg_pic_len : i == 1 ? spot_pic_len : lens == SOPHON_RING_NULL_ ? 0 : lens[i - 2];
        if (used[i] > ring->room[i].max)
            return -EINVAL;
    }

    record = sophon_ring_record_at_(ring);
    length = ring->room[0].at;
    for (i = 0; i < ring->pictures; i++) {
        const uint32_t kind = i == 0 ? SOPHON_RING_REG_PIC_ : i == 1 ? SOPHON_RING_SPOT_PIC_
                                                                     : SOPHON_RING_NAMED_PIC_ + i - 2;
        if (used[i] == 0)
            continue;
        /* What the pictures before did not use and this one cannot move into. Its bytes stay as they are. */
        if (length < ring->room[i].at) {
            struct sophon_ring_section_ filler;
            filler.kind = SOPHON_RING_FILLER_;
            filler.length = ring->room[i].at - length - SOPHON_RING_CAST_(uint32_t, sizeof filler);
            memcpy(record + length, &filler, sizeof filler);
        }
        sophon_ring_put_section_(record + ring->room[i].at, kind, used[i]);
        length = ring->room[i].at + SOPHON_RING_CAST_(uint32_t, sophon_ring_section_size_(used[i]));
    }
    sequence = ring->sequence + 1;
    memcpy(record + offsetof(struct sophon_ring_record_, length), &length, sizeof length);
    memcpy(record + offsetof(struct sophon_ring_record_, sequence), &sequence, sizeof sequence);

    /* Sequence before head: a successor may skip a number and never gives one twice. */
    ring->sequence = sequence;
    __atomic_store_n(&ring->header->sequence, ring->sequence, __ATOMIC_RELAXED);
    ring->head += ring->padding + length;
    __atomic_store_n(&ring->header->head, ring->head, __ATOMIC_RELEASE);
    ring->reserved = 0;
    sophon_ring_wake_(ring);
    return 0;
}

SOPHON_RING_FUNCTION_ void sophon_event2_init(sophon_event2 *event)
{
    if (event == SOPHON_RING_NULL_)
        return;
    memset(event, 0, sizeof *event);
    event->size = sizeof *event;
    event->event.device_type = -1;
}

SOPHON_RING_FUNCTION_ void sophon_ring_abort(sophon_ring *ring)
{
    if (ring != SOPHON_RING_NULL_)
        ring->reserved = 0;
}

SOPHON_RING_FUNCTION_ uint64_t sophon_ring_dropped(const sophon_ring *ring)
{
    return ring == SOPHON_RING_NULL_ ? 0 : ring->dropped;
}

/* open() that is not interrupted. -errno, or the descriptor. */
SOPHON_RING_FUNCTION_ int sophon_ring_open_file_(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | SOPHON_RING_O_CLOEXEC_ | SOPHON_RING_O_NOFOLLOW_, 0600);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* What the name itself is, without opening it (a device may act on that) and without following it. */
SOPHON_RING_FUNCTION_ int sophon_ring_look_(const char *path, struct stat *found)
{
    int error = 0;
    const int fd = sophon_ring_open_file_(path, SOPHON_RING_O_PATH_);
    if (fd < 0)
        return fd;
    if (fstat(fd, found) != 0)
        error = -errno;
    close(fd);
    return error;
}

/* 0 if `path` names the file behind `fd`, SOPHON_RING_AGAIN_ if it does not or no longer does. */
SOPHON_RING_FUNCTION_ int sophon_ring_still_names_(const char *path, int fd)
{
    struct stat named, held;
    const int error = sophon_ring_look_(path, &named);
    if (error != 0)
        return error == -ENOENT ? SOPHON_RING_AGAIN_ : error;
    if (fstat(fd, &held) != 0)
        return -errno;
    return named.st_dev == held.st_dev && named.st_ino == held.st_ino ? 0 : SOPHON_RING_AGAIN_;
}

SOPHON_RING_FUNCTION_ int sophon_ring_lock_byte_(int fd, short type, off_t byte)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    if (fcntl(fd, SOPHON_RING_F_OFD_SETLK_, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Takes the producer's lock. It lives as long as the open file description: nothing unlocks it but the last close. */
SOPHON_RING_FUNCTION_ int sophon_ring_lock_(int fd)
{
    return sophon_ring_lock_byte_(fd, F_WRLCK, offsetof(struct sophon_ring_header_, head));
}

/*
 * Makes the ring one of version 2, if whoever reads it reads that: "Versions" in the ABI. The consumer's lock is held meanwhile
 * where it is free, so that none that reads version 1 only can attach between the look and the change.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_become_2_(sophon_ring *ring)
{
    struct sophon_ring_header_ *const header = ring->header;
    const off_t consumer = offsetof(struct sophon_ring_header_, tail);
    int error;
    if (header->abi_version != SOPHON_RING_OLDEST_ABI_)
        return 0;
    error = sophon_ring_lock_byte_(ring->fd, F_WRLCK, consumer);
    if (error == 0) {
        __atomic_store_n(&header->abi_version, SOPHON_RING_ABI_VERSION, __ATOMIC_RELEASE);
        sophon_ring_lock_byte_(ring->fd, F_UNLCK, consumer);
        return 0;
    }
    if (error != -EBUSY)
        return error;
    if (__atomic_load_n(&header->consumer_abi, __ATOMIC_ACQUIRE) < SOPHON_RING_ABI_VERSION
        || __atomic_load_n(&header->consumer_abi_pid, __ATOMIC_RELAXED)
            != __atomic_load_n(&header->consumer_pid, __ATOMIC_RELAXED))
        return -EPROTONOSUPPORT;
    __atomic_store_n(&header->abi_version, SOPHON_RING_ABI_VERSION, __ATOMIC_RELEASE);
    return 0;
}

/* Opens the regular file at `path` and locks it: who holds the lock of the file that a name names may change it. */
SOPHON_RING_FUNCTION_ int sophon_ring_open_locked_(const char *path)
{
    int error;
    const int fd = sophon_ring_open_file_(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd == -ENOENT ? SOPHON_RING_AGAIN_ : fd;
    error = sophon_ring_lock_(fd);
    if (error == 0)
        error = sophon_ring_still_names_(path, fd);
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

/* Allocates the file's pages. Where that cannot be done in advance, its length is enough. */
SOPHON_RING_FUNCTION_ int sophon_ring_allocate_(int fd, uint64_t size)
{
    /* In pieces: a signal interrupts one of them, and a program with a fast timer would never get through the whole. */
    const uint64_t piece = UINT64_C(1) << 20;
    uint64_t at = 0;
    while (at < size) {
        const uint64_t length = size - at < piece ? size - at : piece;
        if (sophon_ring_syscall_(SYS_fallocate, SOPHON_RING_CAST_(long, fd), 0L, at, length) == 0)
            at += length;
        else if (errno == EOPNOTSUPP || errno == ENOSYS)
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_map_(sophon_ring *ring, int fd, uint64_t capacity)
{
    void *const memory = mmap(SOPHON_RING_NULL_, SOPHON_RING_HEADER_SIZE_ + capacity,
                              PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    ring->header = SOPHON_RING_CAST_(struct sophon_ring_header_ *, memory);
    ring->data = SOPHON_RING_CAST_(unsigned char *, memory) + SOPHON_RING_HEADER_SIZE_;
    ring->fd = fd;
    ring->capacity = capacity;
    return 0;
}

SOPHON_RING_FUNCTION_ void sophon_ring_unmap_(sophon_ring *ring)
{
    if (ring->header != SOPHON_RING_NULL_)
        munmap(ring->header, SOPHON_RING_HEADER_SIZE_ + ring->capacity);
    ring->header = SOPHON_RING_NULL_;
}

/*
 * A ring's id must come again neither on this box, after a boot, nor on another one, for receivers drop what they know. A
 * kernel that has just started may have no random numbers for minutes, and /dev/urandom gives the same ones at every
 * boot of an image then. So they are mixed with what differs from box to box, from boot to boot, from process to process
 * and from ring to ring. Nothing here waits, and whatever cannot be had is left out.
 */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_(uint64_t *mixed, const void *bytes, size_t length)
{
    size_t at = 0;
    uint64_t word = length;             /* so that no two sequences of texts are the same */
    for (;;) {
        word = (word ^ mixed[0]) + UINT64_C(0x9E3779B97F4A7C15);
        word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
        mixed[0] = word ^ (word >> 31);
        word = (mixed[1] + mixed[0]) * UINT64_C(0xFF51AFD7ED558CCD);
        mixed[1] = word ^ (word >> 32);
        if (at == length)
            return;
        word = 0;
        memcpy(&word, SOPHON_RING_CAST_(const unsigned char *, bytes) + at, length - at < 8 ? length - at : 8);
        at += length - at < 8 ? length - at : 8;
    }
}

SOPHON_RING_FUNCTION_ void sophon_ring_mix_file_(uint64_t *mixed, const char *path)
{
    unsigned char bytes[4096];
    ssize_t got;
    const int fd = sophon_ring_open_file_(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    got = read(fd, bytes, sizeof bytes);
    close(fd);
    if (got > 0)
        sophon_ring_mix_(mixed, bytes, SOPHON_RING_CAST_(size_t, got));
}

/* The hardware address of every network card. */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_cards_(uint64_t *mixed)
{
    char path[sizeof "/sys/class/net//address" + 255];
    DIR *const cards = opendir("/sys/class/net");
    const struct dirent *card;
    if (cards == SOPHON_RING_NULL_)
        return;
    while ((card = readdir(cards)) != SOPHON_RING_NULL_) {
        const size_t length = strlen(card->d_name);
        if (card->d_name[0] == '.' || length > 255)
            continue;
        memcpy(path, "/sys/class/net/", 15);
        memcpy(path + 15, card->d_name, length);
        memcpy(path + 15 + length, "/address", 9);
        sophon_ring_mix_file_(mixed, path);
    }
    closedir(cards);
}

/* What differs from box to box, and from boot to boot. */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_box_(uint64_t *mixed)
{
    static const char *const sources[] = {
        "/proc/sys/kernel/random/boot_id",
        "/proc/device-tree/serial-number",
        "/sys/block/mmcblk0/device/cid",            /* the flash chip's own number */
        "/proc/stat",                               /* counts of interrupts and switches */
    };
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++)
        sophon_ring_mix_file_(mixed, sources[i]);
    sophon_ring_mix_cards_(mixed);
}

/* Random numbers, if the kernel has some now. Their worth is not known: see above. */
SOPHON_RING_FUNCTION_ void sophon_ring_random_(uint64_t *random)
{
    const long length = 2 * sizeof *random;
    long got;
    int fd;
    do  /* up to 256 bytes come at once or not at all */
        got = sophon_ring_syscall_(SOPHON_RING_SYS_GETRANDOM_, random, length, SOPHON_RING_GRND_NONBLOCK_);
    while (got < 0 && errno == EINTR);
    if (got == length)
        return;
    fd = sophon_ring_open_file_("/dev/urandom", O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return;
    while (read(fd, random, SOPHON_RING_CAST_(size_t, length)) < 0 && errno == EINTR)
        continue;
    close(fd);
}

SOPHON_RING_FUNCTION_ void sophon_ring_make_id_(uint8_t *id, int fd)
{
    static uint32_t count;
    static const int clocks[] = { SOPHON_RING_CLOCK_REALTIME_, SOPHON_RING_CLOCK_BOOTTIME_, SOPHON_RING_CLOCK_PROCESS_ };
    uint64_t random[2] = { 0, 0 }, mixed[2] = { 0, 0 };
    struct sophon_ring_time_ now;
    struct stat file;
    size_t i;
    const uint32_t numbers[2] = { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED),
                                  SOPHON_RING_CAST_(uint32_t, getpid()) };
    sophon_ring_mix_(mixed, numbers, sizeof numbers);
    if (fstat(fd, &file) == 0) {
        sophon_ring_mix_(mixed, &file.st_dev, sizeof file.st_dev);
        sophon_ring_mix_(mixed, &file.st_ino, sizeof file.st_ino);
    }
    for (i = 0; i < sizeof clocks / sizeof *clocks; i++)
        if (sophon_ring_clock_gettime_(clocks[i], &now) == 0)
            sophon_ring_mix_(mixed, &now, sizeof now);
    sophon_ring_mix_box_(mixed);
    /* Not mixed in, but over it: where they are good, so is the id, whatever the rest is. */
    sophon_ring_random_(random);
    mixed[0] ^= random[0];
    mixed[1] ^= random[1];
    memcpy(id, mixed, sizeof mixed);
}

/* Makes a new ring, empty until now, go on where `old` stops: under its id, with what was not read of it. */
SOPHON_RING_FUNCTION_ void sophon_ring_inherit_(sophon_ring *ring, const sophon_ring *old)
{
    const uint64_t mask = ring->capacity - 1;
    uint64_t tail = __atomic_load_n(&old->header->tail, __ATOMIC_ACQUIRE);
    uint64_t from, length, first;
    if (old->head - tail > old->capacity || tail % 8 != 0)
        tail = old->head;
    from = tail & mask;
    length = old->head - tail;
    first = length < ring->capacity - from ? length : ring->capacity - from;
    memcpy(ring->data + from, old->data + from, first);
    memcpy(ring->data, old->data, length - first);
    memcpy(ring->header->id, old->header->id, sizeof ring->header->id);
    ring->header->abi_version = old->header->abi_version;
    ring->header->tail = tail;
    ring->header->consumed = __atomic_load_n(&old->header->consumed, __ATOMIC_RELAXED);
    ring->header->head = ring->head = old->head;
    ring->header->sequence = ring->sequence = old->sequence;
    ring->header->publications = ring->publications = old->publications;
}

/* Makes the file behind `fd`, new and empty, an empty ring, and maps it. */
SOPHON_RING_FUNCTION_ int sophon_ring_fill_(sophon_ring *ring, int fd, uint64_t capacity)
{
    const uint64_t size = SOPHON_RING_HEADER_SIZE_ + capacity;
    long cut;
    int error;
    do
        cut = sophon_ring_syscall_(SYS_ftruncate, SOPHON_RING_CAST_(long, fd), size);
    while (cut != 0 && errno == EINTR);
    if (cut != 0)
        return -errno;
    error = sophon_ring_allocate_(fd, size);
    if (error == 0)
        error = sophon_ring_map_(ring, fd, capacity);
    if (error != 0)
        return error;
    sophon_ring_make_id_(ring->header->id, fd);
    ring->header->magic = SOPHON_RING_MAGIC_;
    ring->header->abi_version = SOPHON_RING_OLDEST_ABI_;
    ring->header->header_size = SOPHON_RING_HEADER_SIZE_;
    ring->header->capacity = capacity;
    ring->header->producer_pid = SOPHON_RING_CAST_(uint32_t, getpid());
    return 0;
}

/*
 * Makes a ring as `fresh` and gives it the name `path`, where there is none, or, to replace a ring whose lock the
 * caller holds, there is that one. Nobody ever sees half a header under `path`. `old` is NULL, or the ring whose events
 * are to be in it.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_make_(sophon_ring *ring, const char *path, const char *fresh, uint64_t capacity,
                                            int replace, const sophon_ring *old)
{
    int error;
    int fd = sophon_ring_open_file_(fresh, O_RDWR | O_CREAT | O_EXCL);
    if (fd == -EEXIST) {
        /* One is being made at this moment (-EBUSY), or somebody was killed while making one: away with it. */
        fd = sophon_ring_open_locked_(fresh);
        if (fd < 0)
            return fd;
        error = unlink(fresh) == 0 ? SOPHON_RING_AGAIN_ : -errno;
        close(fd);
        return error;
    }
    if (fd < 0)
        return fd;
    /* Between its making and its lock, another may have taken it for a dead one's. */
    error = sophon_ring_lock_(fd);
    if (error == 0)
        error = sophon_ring_still_names_(fresh, fd);
    if (error != 0) {
        close(fd);
        return error == -EBUSY ? SOPHON_RING_AGAIN_ : error;
    }
    error = sophon_ring_fill_(ring, fd, capacity);
    if (error == 0 && old != SOPHON_RING_NULL_)
        sophon_ring_inherit_(ring, old);
    if (error == 0 && replace)
        error = rename(fresh, path) == 0 ? 0 : -errno;
    else if (error == 0)
        error = link(fresh, path) == 0 ? 0 : errno == EEXIST ? SOPHON_RING_AGAIN_ : -errno;
    if (error != 0 || !replace)
        unlink(fresh);
    if (error != 0) {
        sophon_ring_unmap_(ring);
        close(fd);
    }
    return error;
}

/*
 * Maps the ring behind `fd`, if it is a good one: 1, and 0 if it is not. A file of another user's is not, whatever is
 * in it: somebody who may read faces and names put it there to be filled.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_adopt_(sophon_ring *ring, int fd, const struct stat *file)
{
    const struct sophon_ring_header_ *header;
    uint64_t capacity, tail;
    int error;
    if ((file->st_uid != geteuid() && file->st_uid != 0)
        || file->st_size < SOPHON_RING_CAST_(off_t, SOPHON_RING_HEADER_SIZE_ + SOPHON_RING_MIN_CAPACITY_)
        || file->st_size > SOPHON_RING_CAST_(off_t, SOPHON_RING_HEADER_SIZE_ + SOPHON_RING_MAX_CAPACITY_))
        return 0;
    capacity = SOPHON_RING_CAST_(uint64_t, file->st_size) - SOPHON_RING_HEADER_SIZE_;
    if ((capacity & (capacity - 1)) != 0)
        return 0;
    error = sophon_ring_map_(ring, fd, capacity);
    if (error != 0)
        return error;
    header = ring->header;
    ring->head = __atomic_load_n(&header->head, __ATOMIC_ACQUIRE);
    ring->sequence = __atomic_load_n(&header->sequence, __ATOMIC_RELAXED);
    ring->dropped = __atomic_load_n(&header->dropped, __ATOMIC_RELAXED);
    ring->publications = __atomic_load_n(&header->publications, __ATOMIC_RELAXED);
    tail = __atomic_load_n(&header->tail, __ATOMIC_ACQUIRE);
    if (header->magic == SOPHON_RING_MAGIC_ && header->abi_version >= SOPHON_RING_OLDEST_ABI_
        && header->abi_version <= SOPHON_RING_ABI_VERSION && header->header_size == SOPHON_RING_HEADER_SIZE_ && header->capacity == capacity
        && ring->head % 8 == 0 && tail % 8 == 0 && ring->head - tail <= capacity)
        return 1;
    sophon_ring_unmap_(ring);
    return 0;
}

/* One try at the table of "Making, taking over, replacing" in the ABI. `spare` is `path` and room for a suffix. */
SOPHON_RING_FUNCTION_ int sophon_ring_try_open_(sophon_ring *ring, const char *path, char *spare, uint64_t capacity)
{
    char *const suffix = spare + strlen(path);
    struct stat file;
    int fd;
    int error = sophon_ring_look_(path, &file);
    memcpy(suffix, ".new", 5);
    if (error == -ENOENT)
        return sophon_ring_make_(ring, path, spare, capacity, 0, SOPHON_RING_NULL_);
    if (error != 0)
        return error;
    if (!S_ISREG(file.st_mode))
        return -EINVAL;
    fd = sophon_ring_open_locked_(path);
    if (fd < 0)
        return fd;

    error = fstat(fd, &file) == 0 ? 0 : -errno;
    /* Killed between the two names of a new ring: `path` is good, the other one goes. */
    if (error == 0 && file.st_nlink > 1 && sophon_ring_still_names_(spare, fd) == 0)
        unlink(spare);
    if (error == 0)
        error = sophon_ring_adopt_(ring, fd, &file);
    if (error == 0) {
        memcpy(suffix, ".bad", 5);
        error = rename(path, spare) == 0 ? SOPHON_RING_AGAIN_ : -errno;
    } else if (error == 1 && ring->capacity != capacity
               && ring->head == __atomic_load_n(&ring->header->tail, __ATOMIC_ACQUIRE)) {
        sophon_ring_unmap_(ring);
        ring->head = ring->sequence = ring->dropped = 0;
        ring->publications = 0;
        error = sophon_ring_make_(ring, path, spare, capacity, 1, SOPHON_RING_NULL_);
    } else if (error == 1) {
        /* It may have come here with holes in it, by a copy, or from where pages could not be allocated. */
        error = sophon_ring_allocate_(fd, SOPHON_RING_HEADER_SIZE_ + ring->capacity);
        if (error == 0) {
            __atomic_store_n(&ring->header->producer_pid, SOPHON_RING_CAST_(uint32_t, getpid()), __ATOMIC_RELAXED);
            return 0;
        }
        sophon_ring_unmap_(ring);
    }
    close(fd);
    return error;
}

/* Which folder `path` is in: its device and its number. `spare` is room for the path and a suffix. */
SOPHON_RING_FUNCTION_ int sophon_ring_folder_of_(const char *path, char *spare, uint64_t *folder)
{
    struct stat found;
    const char *const slash = strrchr(path, '/');
    const size_t length = slash == SOPHON_RING_NULL_ ? 0 : SOPHON_RING_CAST_(size_t, slash - path) + 1;
    int error;
    memcpy(spare, path, length);
    memcpy(spare + length, ".", 2);     /* of a link to a folder, the folder */
    error = sophon_ring_look_(spare, &found);
    if (error != 0)
        return error;
    folder[0] = SOPHON_RING_CAST_(uint64_t, found.st_dev);
    folder[1] = SOPHON_RING_CAST_(uint64_t, found.st_ino);
    return 0;
}

/*
 * Opens the FIFO at `path`, which is made where there is nothing, for reading and writing: so no open waits for sophon-uplink, no
 * write raises SIGPIPE, and what is written is there when it comes. -errno where it is not this user's alone: sophon-uplink then
 * sleeps on the futex.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_open_fifo_(const char *path, struct stat *found)
{
    int fd;
    int error = mkfifo(path, 0600) == 0 || errno == EEXIST ? 0 : -errno;
    if (error == 0)
        error = sophon_ring_look_(path, found);
    if (error == 0 && !S_ISFIFO(found->st_mode))
        error = -EEXIST;
    if (error != 0)
        return error;
    fd = sophon_ring_open_file_(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    if (fstat(fd, found) == 0 && S_ISFIFO(found->st_mode) && found->st_uid == geteuid() && (found->st_mode & 077) == 0)
        return fd;
    close(fd);
    return -EACCES;
}

/* Has a FIFO from now on, or, without a word, none: "Waking" in the ABI. */
SOPHON_RING_FUNCTION_ void sophon_ring_offer_fifo_(sophon_ring *ring)
{
    struct stat found;
    strcpy(ring->spare, ring->path);
    strcat(ring->spare, ".wake");
    ring->fifo = sophon_ring_open_fifo_(ring->spare, &found);
    __atomic_store_n(&ring->header->fifo_inode, ring->fifo < 0 ? 0 : SOPHON_RING_CAST_(uint64_t, found.st_ino),
                     __ATOMIC_RELAXED);
    /* Release: who sees the pid sees which FIFO it is. */
    __atomic_store_n(&ring->header->fifo_pid, ring->fifo < 0 ? 0 : SOPHON_RING_CAST_(uint32_t, getpid()), __ATOMIC_RELEASE);
}

/* The ring's file has no name any more: makes a new one, and goes on in it. 0, or why the old one is kept. */
SOPHON_RING_FUNCTION_ int sophon_ring_renew_(sophon_ring *ring)
{
    const off_t consumer = offsetof(struct sophon_ring_header_, tail);
    sophon_ring made;
    struct stat found;
    uint64_t folder[2];
    int is_ours;
    int error = sophon_ring_look_(ring->path, &found);
    if (error != -ENOENT)
        return error == 0 ? -EEXIST : error;            /* another's is there now */
    error = sophon_ring_folder_of_(ring->path, ring->spare, folder);
    if (error != 0)
        return error;
    if (folder[0] != ring->folder[0] || folder[1] != ring->folder[1])
        return -ENOENT;                 /* this process has another root or another working folder now */
    /* Who reads the old ring has its lock, and reads it to its end. Else nobody ever will: its events must go along. */
    is_ours = sophon_ring_lock_byte_(ring->fd, F_WRLCK, consumer) == 0;
    memset(&made, 0, sizeof made);
    strcpy(ring->spare, ring->path);
    strcat(ring->spare, ".new");
    error = sophon_ring_make_(&made, ring->path, ring->spare, ring->capacity, 0,
                              is_ours ? ring : SOPHON_RING_NULL_);
    if (error != 0) {
        if (is_ours)
            sophon_ring_lock_byte_(ring->fd, F_UNLCK, consumer);    /* the name may come back */
        return error;
    }
    made.header->dropped = made.dropped = ring->dropped;
    made.path = ring->path;
    made.spare = ring->spare;
    made.folder[0] = ring->folder[0];
    made.folder[1] = ring->folder[1];
    made.look_at = ring->look_at;
    __atomic_store_n(&ring->header->producer_pid, 0u, __ATOMIC_RELAXED);
    sophon_ring_unmap_(ring);
    close(ring->fd);
    if (ring->fifo >= 0)
        close(ring->fifo);
    *ring = made;
    sophon_ring_offer_fifo_(ring);
    return 0;
}

/* Once in a while, sees whether the ring still has a name, by which it can be found. There is no reservation. */
SOPHON_RING_FUNCTION_ void sophon_ring_look_at_name_(sophon_ring *ring)
{
    struct sophon_ring_time_ now;
    struct stat held;
    int64_t milliseconds;
    if (sophon_ring_clock_gettime_(SOPHON_RING_CLOCK_COARSE_, &now) != 0)
        return;
    milliseconds = now.seconds * 1000 + now.nanoseconds / 1000000;
    if (milliseconds < ring->look_at)
        return;
    ring->look_at = milliseconds + SOPHON_RING_LOOK_;
    if (fstat(ring->fd, &held) == 0 && held.st_nlink == 0 && sophon_ring_renew_(ring) != 0)
        ring->look_at = milliseconds + SOPHON_RING_LOOK_LATER_;
}

SOPHON_RING_FUNCTION_ int sophon_ring_open(sophon_ring **ring, const char *path, uint64_t capacity)
{
    sophon_ring *made;
    char *kept, *spare;
    uint64_t rounded = SOPHON_RING_MIN_CAPACITY_;
    size_t length;
    int error = SOPHON_RING_AGAIN_;
    int tries;
    if (ring == SOPHON_RING_NULL_)
        return -EINVAL;
    *ring = SOPHON_RING_NULL_;
    if (path == SOPHON_RING_NULL_ || *path == '\0' || capacity > SOPHON_RING_MAX_CAPACITY_)
        return -EINVAL;
    while (rounded < capacity)
        rounded *= 2;

    length = strlen(path);
    made = SOPHON_RING_CAST_(sophon_ring *, calloc(1, sizeof *made));
    kept = SOPHON_RING_CAST_(char *, malloc(length + 1));
    spare = SOPHON_RING_CAST_(char *, malloc(length + sizeof ".wake"));
    if (made == SOPHON_RING_NULL_ || kept == SOPHON_RING_NULL_ || spare == SOPHON_RING_NULL_) {
        error = -ENOMEM;
    } else {
        memcpy(kept, path, length + 1);
        memcpy(spare, path, length + 1);
        for (tries = 0; tries < SOPHON_RING_TRIES_ && error == SOPHON_RING_AGAIN_; tries++) {
            memset(made, 0, sizeof *made);
            error = sophon_ring_try_open_(made, path, spare, rounded);
        }
        if (error == SOPHON_RING_AGAIN_)
            error = -EBUSY;             /* that many others were faster: one of them is alive */
    }
    if (error == 0) {
        made->path = kept;
        made->spare = spare;
        sophon_ring_folder_of_(path, spare, made->folder);
        sophon_ring_offer_fifo_(made);
        *ring = made;
    } else {
        free(spare);
        free(kept);
        free(made);
    }
    return error;
}

SOPHON_RING_FUNCTION_ void sophon_ring_close(sophon_ring *ring)
{
    if (ring == SOPHON_RING_NULL_)
        return;
    /* Closed in order: not by a child of the recognizer, which is alive. */
    if (__atomic_load_n(&ring->header->producer_pid, __ATOMIC_RELAXED) == SOPHON_RING_CAST_(uint32_t, getpid())) {
        __atomic_store_n(&ring->header->fifo_pid, 0u, __ATOMIC_RELAXED);
        __atomic_store_n(&ring->header->producer_pid, 0u, __ATOMIC_RELAXED);
    }
    sophon_ring_unmap_(ring);
    if (ring->fifo >= 0)
        close(ring->fifo);
    close(ring->fd);                    /* no F_UNLCK: it would take the lock from a parent, if this is its child */
    free(ring->spare);
    free(ring->path);
    free(ring);
}

#ifdef __cplusplus
}
#endif

#endif /* SOPHON_RING_H */
