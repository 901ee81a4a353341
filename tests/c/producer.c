/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recognizer that does as it is told: tests drive it line by line and get a real C99 producer at the other end of the
 * ring. producer.cpp is the same in C++11.
 *
 * One command a line on stdin, one answer a line on stdout: `ok`, `ok VALUES`, or `error -28 ENOSPC`. Words are separated
 * by single spaces; in every value %XX stands for a byte. A string that is not given is NULL.
 *
 *   open PATH CAPACITY       -> ok
 *   close                    -> ok
 *   publish FIELDS           -> ok SEQUENCE
 *   reserve FIELDS [reg_max=N] [spot_max=N]        -> ok
 *   write [reg_file=PATH] [spot_file=PATH]         -> ok REG_LEN SPOT_LEN    into the reserved room
 *   write_half               -> ok                 half of the reserved room, with 0xAA
 *   commit [reg_len=N] [spot_len=N]                -> ok SEQUENCE            a length not given: what `write` wrote
 *   abort                    -> ok
 *   many N SIZE [noretry]    -> ok SEQUENCE PUBLISHED DROPPED    N events with two pictures of SIZE bytes; a full ring is
 *                               tried again after a nap, with noretry the event is lost
 *   dropped                  -> ok COUNT
 *   seq                      -> ok SEQUENCE        the last one given
 *   id                       -> ok 32 HEX DIGITS   of the ring
 *   pid                      -> ok PID
 *   hang                     -> ok, and nothing more: to be killed
 *
 * FIELDS: identity_id= identity_name= (or name=) group_name= group_id= device_ip= ext_json= timestamp_ms= score=
 * person_type= device_type= (-1 if not given) reg_file= spot_file=
 * and, where the header is one of ABI 2, which then takes the event: top_json=, and up to 16 times
 *   pic=PLACE:NAME:PATH (publish), pic=PLACE:NAME:N (reserve: at most N bytes), pic=0:0:PATH (write), pic=0:0:N (commit)
 *
 * SOPHON_RING_HEADER names another header than today's.
 *
 * Event number n of `many`, from 1: identity_id "many-n", identity_name "n", group_name "many", timestamp_ms n, score 0.5;
 * byte j of its registered picture is (131 n + 7 j + j/256) mod 256, of its spot picture one more.
 */
#ifdef __STRICT_ANSI__
#define _POSIX_C_SOURCE 200809L
#endif
#ifdef SOPHON_RING_HEADER
#include SOPHON_RING_HEADER
#else
#include "../../include/sophon_ring.h"
#endif

#include <inttypes.h>
#include <time.h>

struct bytes {
    unsigned char *data;
    size_t length;
};

/* Registered picture, spot picture, named ones. */
#define PICTURES 18

/* One ring, and at most one reservation in it. */
static sophon_ring *ring;
static unsigned char *room[PICTURES];
static size_t room_max[PICTURES];
static size_t written[PICTURES];

static const char *name_of(int error)
{
    switch (error) {
    case EINVAL: return "EINVAL";
    case EMSGSIZE: return "EMSGSIZE";
    case ENOSPC: return "ENOSPC";
    case EBUSY: return "EBUSY";
    case ENOENT: return "ENOENT";
    case EACCES: return "EACCES";
    case EISDIR: return "EISDIR";
    case ENOMEM: return "ENOMEM";
    case EPROTONOSUPPORT: return "EPROTONOSUPPORT";
    default: return "OTHER";
    }
}

static void answer(int error)
{
    if (error == 0)
        printf("ok\n");
    else
        printf("error %d %s\n", error, name_of(-error));
}

static void answer_sequence(int error)
{
    if (error == 0)
        printf("ok %" PRIu64 "\n", ring->sequence);
    else
        answer(error);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes %XX in place: it only gets shorter. */
static void decode(char *text)
{
    char *to = text;
    while (*text != '\0') {
        if (*text == '%' && digit(text[1]) >= 0 && digit(text[2]) >= 0) {
            *to++ = (char)(digit(text[1]) * 16 + digit(text[2]));
            text += 3;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
}

/* The whole of a file. */
static int read_file(const char *path, struct bytes *bytes)
{
    size_t room_here = 1u << 16;
    size_t got;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return -errno;
    free(bytes->data);
    bytes->data = malloc(room_here);
    bytes->length = 0;
    while (bytes->data != NULL && (got = fread(bytes->data + bytes->length, 1, room_here - bytes->length, file)) > 0) {
        bytes->length += got;
        if (bytes->length == room_here) {
            room_here *= 2;
            bytes->data = realloc(bytes->data, room_here);
        }
    }
    fclose(file);
    return bytes->data == NULL ? -ENOMEM : 0;
}

/* What a line says after its command. */
struct fields {
    sophon_event event;
    struct bytes picture[PICTURES];
    size_t length[PICTURES];
    int has_length[PICTURES];
    int is_of_2;
    int named;
    int place[PICTURES];
    char *name[PICTURES];
    const char *top_json;
};

/* pic=PLACE:NAME:PATH, or a number in place of the path. */
static int set_picture(struct fields *fields, char *value)
{
    char *name = strchr(value, ':');
    char *content = name == NULL ? NULL : strchr(name + 1, ':');
    char *end;
    const int i = 2 + fields->named;
    if (content == NULL || i >= PICTURES)
        return -EINVAL;
    *name++ = *content++ = '\0';
    fields->is_of_2 = 1;
    fields->named++;
    fields->place[i] = (int)strtol(value, NULL, 10);
    fields->name[i] = name;
    fields->length[i] = (size_t)strtoull(content, &end, 10);
    fields->has_length[i] = *end == '\0' && end != content;
    return fields->has_length[i] ? 0 : read_file(content, &fields->picture[i]);
}

static int set(struct fields *fields, const char *key, char *value)
{
    sophon_event *event = &fields->event;
    if (strcmp(key, "identity_id") == 0) event->identity_id = value;
    else if (strcmp(key, "identity_name") == 0 || strcmp(key, "name") == 0) event->identity_name = value;
    else if (strcmp(key, "group_name") == 0) event->group_name = value;
    else if (strcmp(key, "group_id") == 0) event->group_id = value;
    else if (strcmp(key, "device_ip") == 0) event->device_ip = value;
    else if (strcmp(key, "ext_json") == 0) event->ext_json = value;
    else if (strcmp(key, "timestamp_ms") == 0) event->timestamp_ms = strtoll(value, NULL, 10);
    else if (strcmp(key, "score") == 0) event->score = strtof(value, NULL);
    else if (strcmp(key, "person_type") == 0) event->person_type = (int32_t)strtol(value, NULL, 10);
    else if (strcmp(key, "device_type") == 0) event->device_type = (int32_t)strtol(value, NULL, 10);
    else if (strcmp(key, "reg_file") == 0) return read_file(value, &fields->picture[0]);
    else if (strcmp(key, "spot_file") == 0) return read_file(value, &fields->picture[1]);
    else if (strcmp(key, "pic") == 0) return set_picture(fields, value);
    else if (strcmp(key, "top_json") == 0) {
        fields->top_json = value;
        fields->is_of_2 = 1;
    } else if (strcmp(key, "reg_max") == 0 || strcmp(key, "reg_len") == 0) {
        fields->length[0] = (size_t)strtoull(value, NULL, 10);
        fields->has_length[0] = 1;
    } else if (strcmp(key, "spot_max") == 0 || strcmp(key, "spot_len") == 0) {
        fields->length[1] = (size_t)strtoull(value, NULL, 10);
        fields->has_length[1] = 1;
    } else return -EINVAL;
    return 0;
}

/* Splits what follows the command; `rest` is written to and pointed into. */
static int parse(char *rest, struct fields *fields)
{
    int error = 0;
    memset(fields, 0, sizeof *fields);
    fields->event.device_type = -1;
    while (error == 0 && rest != NULL && *rest != '\0') {
        char *next = strchr(rest, ' ');
        char *value = strchr(rest, '=');
        if (next != NULL)
            *next++ = '\0';
        if (value == NULL || (next != NULL && value >= next))
            return -EINVAL;
        *value++ = '\0';
        decode(value);
        error = set(fields, rest, value);
        rest = next;
    }
    fields->event.reg_pic = fields->picture[0].data;
    fields->event.reg_pic_len = fields->picture[0].length;
    fields->event.spot_pic = fields->picture[1].data;
    fields->event.spot_pic_len = fields->picture[1].length;
    return error;
}

#if SOPHON_RING_ABI_VERSION >= 2
/* The event with what only ABI 2 has; its pictures stay where they are. */
static sophon_event2 event2_of(const struct fields *fields, sophon_picture *pictures)
{
    sophon_event2 event;
    int i;
    sophon_event2_init(&event);
    event.event = fields->event;
    event.top_json = fields->top_json;
    event.pictures = pictures;
    event.pictures_count = (size_t)fields->named;
    for (i = 0; i < fields->named; i++) {
        pictures[i].name = fields->name[2 + i];
        pictures[i].place = fields->place[2 + i];
        pictures[i].data = fields->picture[2 + i].data;
        pictures[i].len = fields->has_length[2 + i] ? fields->length[2 + i] : fields->picture[2 + i].length;
    }
    return event;
}

static int publish_2(const struct fields *fields)
{
    sophon_picture pictures[PICTURES];
    const sophon_event2 event = event2_of(fields, pictures);
    return sophon_ring_publish2(ring, &event);
}

static int reserve_2(const struct fields *fields, void **at)
{
    sophon_picture pictures[PICTURES];
    sophon_event2 event = event2_of(fields, pictures);
    event.event.reg_pic_len = fields->length[0];
    event.event.spot_pic_len = fields->length[1];
    return sophon_ring_reserve2(ring, &event, &at[0], &at[1], at + 2);
}

static int commit_2(const size_t *lengths)
{
    return sophon_ring_commit2(ring, lengths[0], lengths[1], lengths + 2);
}
#else
static int publish_2(const struct fields *fields) { return fields == NULL ? 0 : -EINVAL; }
static int reserve_2(const struct fields *fields, void **at) { return fields == NULL || at == NULL ? 0 : -EINVAL; }
static int commit_2(const size_t *lengths) { return sophon_ring_commit(ring, lengths[0], lengths[1]); }
#endif

static void publish(struct fields *fields)
{
    answer_sequence(fields->is_of_2 ? publish_2(fields) : sophon_ring_publish(ring, &fields->event));
}

static void reserve(struct fields *fields)
{
    void *at[PICTURES] = {NULL};
    const int error = fields->is_of_2 ? reserve_2(fields, at) : sophon_ring_reserve(
        ring, &fields->event, fields->length[0], fields->length[1], &at[0], &at[1]);
    int i;
    for (i = 0; error == 0 && i < PICTURES; i++) {
        room[i] = at[i];
        room_max[i] = fields->length[i];
        written[i] = 0;
    }
    answer(error);
}

static void write_pictures(struct fields *fields)
{
    int i;
    for (i = 0; i < PICTURES; i++)
        if (fields->picture[i].length > (room[i] == NULL ? 0 : room_max[i])) {
            answer(-EINVAL);
            return;
        }
    for (i = 0; i < PICTURES; i++)
        if (fields->picture[i].length > 0) {
            memcpy(room[i], fields->picture[i].data, fields->picture[i].length);
            written[i] = fields->picture[i].length;
        }
    printf("ok %zu %zu\n", written[0], written[1]);
}

static void write_half(void)
{
    int i;
    for (i = 0; i < PICTURES; i++)
        if (room[i] != NULL)
            memset(room[i], 0xAA, room_max[i] / 2);
    answer(room[0] == NULL && room[1] == NULL ? -EINVAL : 0);
}

static void forget_reservation(void)
{
    int i;
    for (i = 0; i < PICTURES; i++) {
        room[i] = NULL;
        room_max[i] = written[i] = 0;
    }
}

static void commit(struct fields *fields)
{
    size_t lengths[PICTURES];
    int i, error;
    for (i = 0; i < PICTURES; i++)
        lengths[i] = fields->has_length[i] ? fields->length[i] : written[i];
    error = commit_2(lengths);
    if (error == 0)
        forget_reservation();
    answer_sequence(error);
}

static void draw(unsigned char *picture, size_t size, uint64_t seed)
{
    size_t j;
    for (j = 0; j < size; j++)
        picture[j] = (unsigned char)(seed + 7 * j + j / 256);
}

static void many(char *rest)
{
    const struct timespec nap = {0, 200000};
    char *end = NULL;
    uint64_t n, published = 0;
    const uint64_t count = rest == NULL ? 0 : strtoull(rest, &end, 10);
    const size_t size = end == NULL ? 0 : (size_t)strtoull(end, &end, 10);
    const int retry = end == NULL || strcmp(end, " noretry") != 0;
    unsigned char *pictures = malloc(2 * size + 1);
    if (end == NULL || pictures == NULL || (*end != '\0' && retry)) {
        free(pictures);
        answer(-EINVAL);
        return;
    }
    for (n = 1; n <= count; n++) {
        char id[40], name[40];
        sophon_event event;
        int error;
        memset(&event, 0, sizeof event);
        sprintf(id, "many-%" PRIu64, n);
        sprintf(name, "%" PRIu64, n);
        event.identity_id = id;
        event.identity_name = name;
        event.group_name = "many";
        event.timestamp_ms = (int64_t)n;
        event.score = 0.5f;
        event.device_type = -1;
        draw(pictures, size, 131 * n);
        draw(pictures + size, size, 131 * n + 1);
        event.reg_pic = pictures;
        event.spot_pic = pictures + size;
        event.reg_pic_len = event.spot_pic_len = size;
        while ((error = sophon_ring_publish(ring, &event)) == -ENOSPC && retry)
            nanosleep(&nap, NULL);
        if (error == 0) {
            published++;
        } else if (error != -ENOSPC) {
            free(pictures);
            answer(error);
            return;
        }
    }
    free(pictures);
    printf("ok %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", ring == NULL ? 0 : ring->sequence, published, count - published);
}

static void open_ring(char *rest)
{
    char *capacity = rest == NULL ? NULL : strchr(rest, ' ');
    if (capacity == NULL || ring != NULL) {
        answer(-EINVAL);
        return;
    }
    *capacity++ = '\0';
    decode(rest);
    answer(sophon_ring_open(&ring, rest, strtoull(capacity, NULL, 10)));
}

static void id(void)
{
    size_t i;
    if (ring == NULL) {
        answer(-EINVAL);
        return;
    }
    printf("ok ");
    for (i = 0; i < sizeof ring->header->id; i++)
        printf("%02x", (unsigned)ring->header->id[i]);
    printf("\n");
}

static void with_fields(char *rest, void (*then)(struct fields *))
{
    struct fields fields;
    int i;
    const int error = parse(rest, &fields);
    if (error == 0)
        then(&fields);
    else
        answer(error);
    for (i = 0; i < PICTURES; i++)
        free(fields.picture[i].data);
}

static void obey(const char *command, char *rest)
{
    if (strcmp(command, "open") == 0) {
        open_ring(rest);
    } else if (strcmp(command, "close") == 0) {
        sophon_ring_close(ring);
        ring = NULL;
        forget_reservation();
        answer(0);
    } else if (strcmp(command, "publish") == 0) {
        with_fields(rest, publish);
    } else if (strcmp(command, "reserve") == 0) {
        with_fields(rest, reserve);
    } else if (strcmp(command, "write") == 0) {
        with_fields(rest, write_pictures);
    } else if (strcmp(command, "write_half") == 0) {
        write_half();
    } else if (strcmp(command, "commit") == 0) {
        with_fields(rest, commit);
    } else if (strcmp(command, "abort") == 0) {
        sophon_ring_abort(ring);
        forget_reservation();
        answer(0);
    } else if (strcmp(command, "many") == 0) {
        many(rest);
    } else if (strcmp(command, "dropped") == 0) {
        printf("ok %" PRIu64 "\n", sophon_ring_dropped(ring));
    } else if (strcmp(command, "seq") == 0) {
        printf("ok %" PRIu64 "\n", ring == NULL ? 0 : ring->sequence);
    } else if (strcmp(command, "id") == 0) {
        id();
    } else if (strcmp(command, "pid") == 0) {
        printf("ok %ld\n", (long)getpid());
    } else if (strcmp(command, "hang") == 0) {
        answer(0);
        fflush(stdout);
        for (;;)
            pause();
    } else {
        answer(-EINVAL);
    }
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        char *rest;
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        rest = strchr(line, ' ');
        if (rest != NULL)
            *rest++ = '\0';
        obey(line, rest);
        fflush(stdout);
    }
    free(line);
    sophon_ring_close(ring);
    return 0;
}
