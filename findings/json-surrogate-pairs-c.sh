#!/usr/bin/env bash
# json-parser reads a wrong character for one beyond U+1FFFF that is escaped as \uXXXX\uXXXX, and laxjson produces bytes that
# are not UTF-8. json-parser reads emoji right, so a test with an emoji does not show it.
#
# Guess before the run: every C parser that turns \u5f20 into UTF-8 also joins surrogate pairs.
# Seen: json-parser 1.1.0 reads the name U+20BB7 (a character of Chinese and Japanese family names) as U+10BB7, because it joins
# the halves by OR where it must add 0x10000; it reads U+1F600 right. laxjson 1.0.5 encodes each half by itself (CESU-8: six
# bytes). Neither reports an error. libfastjson 1.2304.0 and YAJL 2.1.0 are right.
# For a receiver: sophon-uplink writes JSON as pure ASCII, as the box's own reporter did, so these names come as pairs. Use
# another parser.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian libfastjson-dev=1.2304.0-1 libfastjson4=1.2304.0-1 libjsonparser-dev=1.1.0-2 libjsonparser1.1=1.1.0-2 \
    liblaxjson-dev=1.0.5-4 liblaxjson1=1.0.5-4 libyajl-dev=2.1.0-3+deb12u2 libyajl2=2.1.0-3+deb12u2

# The same program for each library: it reads the value of the only member of this object.
cat >event.h <<'CODE'
#include <stdio.h>
#include <string.h>
static const char *const NAMES[][2] = {
    {"U+5F20 ", "{\"identity_name\":\"\\u5f20\"}"},
    {"U+1F600", "{\"identity_name\":\"\\ud83d\\ude00\"}"},
    {"U+20BB7", "{\"identity_name\":\"\\ud842\\udfb7\"}"},
};
static void show(const char *library, const char *name, const char *bytes, size_t length) {
    printf("%s %s:", library, name);
    for (size_t i = 0; i < length; i++) printf(" %02x", (unsigned char)bytes[i]);
    puts("");
}
CODE
cat >fastjson.c <<'CODE'
#include "event.h"
#include <libfastjson/json.h>
int main(void) {
    for (int i = 0; i < 3; i++) {
        struct fjson_object *event = fjson_tokener_parse(NAMES[i][1]), *name = NULL;
        fjson_object_object_get_ex(event, "identity_name", &name);
        show("libfastjson", NAMES[i][0], fjson_object_get_string(name), fjson_object_get_string_len(name));
    }
}
CODE
cat >yajl.c <<'CODE'
#include "event.h"
#include <yajl/yajl_tree.h>
int main(void) {
    const char *path[] = {"identity_name", NULL};
    for (int i = 0; i < 3; i++) {
        const char *name = YAJL_GET_STRING(yajl_tree_get(yajl_tree_parse(NAMES[i][1], NULL, 0), path, yajl_t_string));
        show("yajl       ", NAMES[i][0], name, strlen(name));
    }
}
CODE
cat >jsonparser.c <<'CODE'
#include "event.h"
#include <json-parser/json.h>
int main(void) {
    for (int i = 0; i < 3; i++) {
        json_value *name = json_parse(NAMES[i][1], strlen(NAMES[i][1]))->u.object.values[0].value;
        show("json-parser", NAMES[i][0], name->u.string.ptr, name->u.string.length);
    }
}
CODE
cat >laxjson.c <<'CODE'
#include "event.h"
#include <laxjson.h>
static const char *current;
static int text(struct LaxJsonContext *context, enum LaxJsonType type, const char *bytes, int length) {
    (void)context;
    if (type == LaxJsonTypeString) show("laxjson    ", current, bytes, (size_t)length);
    return 0;
}
static int number(struct LaxJsonContext *context, double value) { return (void)context, (void)value, 0; }
static int other(struct LaxJsonContext *context, enum LaxJsonType type) { return (void)context, (void)type, 0; }
int main(void) {
    for (int i = 0; i < 3; i++) {
        struct LaxJsonContext *context = lax_json_create();
        context->string = text, context->number = number, context->primitive = context->begin = context->end = other;
        current = NAMES[i][0];
        if (lax_json_feed(context, (int)strlen(NAMES[i][1]), NAMES[i][1]) || lax_json_eof(context)) puts("laxjson: an error");
    }
}
CODE
for library in fastjson yajl jsonparser laxjson; do
    gcc -w -Iroot/usr/include "$library.c" -o "$library" -L"$LIB" -l"$library" -lm
    "./$library"
done >seen
cat >expected <<'SEEN'
libfastjson U+5F20 : e5 bc a0
libfastjson U+1F600: f0 9f 98 80
libfastjson U+20BB7: f0 a0 ae b7
yajl        U+5F20 : e5 bc a0
yajl        U+1F600: f0 9f 98 80
yajl        U+20BB7: f0 a0 ae b7
json-parser U+5F20 : e5 bc a0
json-parser U+1F600: f0 9f 98 80
json-parser U+20BB7: f0 90 ae b7
laxjson     U+5F20 : e5 bc a0
laxjson     U+1F600: ed a0 bd ed b8 80
laxjson     U+20BB7: ed a1 82 ed be b7
SEEN
same expected seen
