#!/usr/bin/env bash
# A timestamp in milliseconds, read through the `int` accessor of five C and C++ JSON libraries: two wrap, two saturate, all
# four without an error; one throws.
#
# Guess before the run: an accessor that cannot give the value fails (returns an error, or throws).
# Seen for 1700000000123: jansson 2.14 json_unpack("i") returns 0 (success) and gives -807049093, nlohmann/json 3.11.2
# get<int>() gives -807049093, cJSON 1.7.15 valueint and json-c 0.16 json_object_get_int give 2147483647 (19 January 2038),
# JsonCpp 1.9.5 asInt() throws.
# For a receiver of `timestamp_unit: "ms"`: read 64 bits ("I", get<int64_t>(), valuedouble, json_object_get_int64).
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian libjson-c-dev=0.16-2 libjson-c5=0.16-2 libcjson-dev=1.7.15-1+deb12u4 libcjson1=1.7.15-1+deb12u4 \
    libjsoncpp-dev=1.9.5-4 libjsoncpp25=1.9.5-4 nlohmann-json3-dev=3.11.2-2 libjansson-dev=2.14-2 libjansson4=2.14-2
cat >jansson.c <<'CODE'
#include <jansson.h>
#include <stdio.h>

int main(void) {
    json_t *event = json_loads("{\"timestamp\":1700000000123}", 0, NULL);
    int number = 0, result = json_unpack(event, "{s:i}", "timestamp", &number);
    printf("jansson json_unpack i: returns %d, gives %d\n", result, number);
    return 0;
}
CODE
cat >others.cpp <<'CODE'
#include <cjson/cJSON.h>
#include <cstdio>
#include <json-c/json.h>
#include <json/json.h>
#include <nlohmann/json.hpp>

int main() {
    const char *text = "{\"timestamp\":1700000000123}";
    printf("nlohmann get<int>(): gives %d\n", nlohmann::json::parse(text)["timestamp"].get<int>());
    printf("cJSON valueint: gives %d\n", cJSON_GetObjectItem(cJSON_Parse(text), "timestamp")->valueint);
    json_object *member = nullptr;
    json_object_object_get_ex(json_tokener_parse(text), "timestamp", &member);
    printf("json-c json_object_get_int: gives %d\n", json_object_get_int(member));
    Json::Value event;
    Json::Reader().parse(text, event);
    try {
        printf("JsonCpp asInt(): gives %d\n", event["timestamp"].asInt());
    } catch (const std::exception &) {
        puts("JsonCpp asInt(): throws");
    }
}
CODE
gcc -w -Iroot/usr/include jansson.c -o with-jansson -L"$LIB" -ljansson
g++ -std=c++17 -w -Iroot/usr/include -Iroot/usr/include/jsoncpp others.cpp -o others -L"$LIB" -lcjson -ljson-c -ljsoncpp
{ ./with-jansson; ./others; } >seen
cat >expected <<'SEEN'
jansson json_unpack i: returns 0, gives -807049093
nlohmann get<int>(): gives -807049093
cJSON valueint: gives 2147483647
json-c json_object_get_int: gives 2147483647
JsonCpp asInt(): throws
SEEN
same expected seen
