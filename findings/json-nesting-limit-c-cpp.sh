#!/usr/bin/env bash
# json-c and Boost.JSON refuse a document that nests deeper than 32 levels; two other C and C++ parsers accept 1,000.
#
# Guess before the run: every JSON parser accepts at least 100 levels by default, and Boost.JSON, the newest, the most.
# Seen: json-c 0.16 and Boost.JSON 1.81 accept 32 levels (arrays inside {"ext_data":{"a":…}}) and refuse the 33rd. Both do so
# by default (`json_tokener_new`'s JSON_TOKENER_DEFAULT_DEPTH, `parse_options::max_depth`). cJSON 1.7.15 and JsonCpp 1.9.5
# accept 1,000. json_tokener_parse() gives NULL and no reason.
# For a receiver: nested quality data in ext_data may lose the whole event. Raise the limit (json_tokener_new_ex(64),
# parse_options.max_depth = 64).
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian libjson-c-dev=0.16-2 libjson-c5=0.16-2 libcjson-dev=1.7.15-1+deb12u4 libcjson1=1.7.15-1+deb12u4 \
    libjsoncpp-dev=1.9.5-4 libjsoncpp25=1.9.5-4 libboost1.81-dev=1.81.0-5+deb12u1 libboost-json1.81-dev=1.81.0-5+deb12u1 \
    libboost-json1.81.0=1.81.0-5+deb12u1
cat >deepest.cpp <<'CODE'
#include <boost/json.hpp>
#include <cjson/cJSON.h>
#include <cstdio>
#include <json-c/json.h>
#include <json/json.h>
#include <memory>
#include <string>

template <class Takes> void deepest(const char *parser, Takes takes) {
    int levels = 2; // two objects, and arrays inside
    while (levels < 1000 && takes("{\"ext_data\":{\"a\":" + std::string(levels - 1, '[') + std::string(levels - 1, ']') + "}}"))
        levels++;
    printf("%s: %d levels%s\n", parser, levels, levels == 1000 ? ", more were not tried" : "");
}

int main() {
    deepest("cJSON", [](const std::string &text) {
        cJSON *value = cJSON_Parse(text.c_str());
        cJSON_Delete(value);
        return value != nullptr;
    });
    deepest("JsonCpp", [](const std::string &text) {
        Json::Value value;
        std::unique_ptr<Json::CharReader> reader(Json::CharReaderBuilder().newCharReader());
        return reader->parse(text.data(), text.data() + text.size(), &value, nullptr);
    });
    deepest("json-c", [](const std::string &text) {
        json_object *value = json_tokener_parse(text.c_str());
        bool taken = value != nullptr;
        json_object_put(value);
        return taken;
    });
    deepest("Boost.JSON", [](const std::string &text) {
        boost::system::error_code error;
        boost::json::parse(text, error);
        return !error;
    });
}
CODE
g++ -std=c++17 -w -Iroot/usr/include -Iroot/usr/include/jsoncpp deepest.cpp -o deepest -L"$LIB" -lcjson -ljson-c -ljsoncpp -lboost_json
./deepest >seen
cat >expected <<'SEEN'
cJSON: 1000 levels, more were not tried
JsonCpp: 1000 levels, more were not tried
json-c: 32 levels
Boost.JSON: 32 levels
SEEN
same expected seen
