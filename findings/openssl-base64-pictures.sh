#!/usr/bin/env bash
# OpenSSL's two short ways to decode base64 both damage a picture. EVP_DecodeBlock() makes it up to two bytes longer.
# BIO_f_base64() reads nothing if the base64 is one line, without an error.
#
# Guess before the run: every decoder returns the bytes that were encoded, whatever their number.
# Seen with OpenSSL 3.0: EVP_DecodeBlock() returns three bytes for every four characters, and zeros for the padding. A receiver
# that uses its return value as the picture's length has another SHA-256 than the box. BIO_f_base64() without
# BIO_FLAGS_BASE64_NO_NL expects short lines: it reads 0 bytes of 100,000, as at the end of a file. EVP_DecodeUpdate() and
# BIO_f_base64() with that flag are right, and so are Mbed TLS 2.28.3 and Nettle 3.8.1.
# For a receiver: base64 in JSON and forms is one line (RFC 4648). A JPEG with zeros behind it is still shown, so only a digest
# finds the fault.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian libssl-dev=3.0.20-1~deb12u1 libssl3=3.0.20-1~deb12u1 libmbedtls-dev=2.28.3-1 libmbedcrypto7=2.28.3-1 \
    nettle-dev=3.8.1-2 libnettle8=3.8.1-2
cat >decode.c <<'CODE'
#include <mbedtls/base64.h>
#include <nettle/base64.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char picture[100000], out[200000];
static char text[200000];
static size_t length;

static void show(const char *decoder, long got) {
    int begins = got >= (long)length && memcmp(out, picture, length) == 0;
    const char *verdict = !begins ? "other bytes" : got == (long)length ? "the picture" : "the picture and zeros";
    printf("%-36s %zu bytes became %ld: %s\n", decoder, length, got, verdict);
    memset(out, 0, sizeof out);
}

static long by_bio(int flags) {
    BIO *decoder = BIO_new(BIO_f_base64());
    BIO_set_flags(decoder, flags);
    decoder = BIO_push(decoder, BIO_new_mem_buf(text, (int)strlen(text)));
    long got = 0;
    for (int more; (more = BIO_read(decoder, out + got, 4096)) > 0;) got += more;
    BIO_free_all(decoder);
    return got;
}

int main(void) {
    for (size_t i = 0; i < sizeof picture; i++) picture[i] = (unsigned char)(i * 2654435761u >> 13);
    for (length = 99998; length <= 100000; length++) {
        int characters = EVP_EncodeBlock((unsigned char *)text, picture, (int)length);
        show("EVP_DecodeBlock", EVP_DecodeBlock(out, (unsigned char *)text, characters));
        show("BIO_f_base64", by_bio(0));
        show("BIO_f_base64, BIO_FLAGS_BASE64_NO_NL", by_bio(BIO_FLAGS_BASE64_NO_NL));
        EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
        int first = 0, last = 0;
        EVP_DecodeInit(context);
        EVP_DecodeUpdate(context, out, &first, (unsigned char *)text, characters);
        EVP_DecodeFinal(context, out + first, &last);
        show("EVP_DecodeUpdate", first + last);
        size_t got = 0;
        mbedtls_base64_decode(out, sizeof out, &got, (unsigned char *)text, (size_t)characters);
        show("mbedtls_base64_decode", (long)got);
        struct base64_decode_ctx state;
        base64_decode_init(&state);
        got = sizeof out;
        base64_decode_update(&state, &got, out, (size_t)characters, text);
        show("nettle_base64_decode_update", (long)got);
    }
}
CODE
gcc -w -Iroot/usr/include -Iroot/usr/include/"$(basename "$LIB")" decode.c -o decode -L"$LIB" -lcrypto -lmbedcrypto -lnettle
./decode >seen
cat >expected <<'SEEN'
EVP_DecodeBlock                      99998 bytes became 99999: the picture and zeros
BIO_f_base64                         99998 bytes became 0: other bytes
BIO_f_base64, BIO_FLAGS_BASE64_NO_NL 99998 bytes became 99998: the picture
EVP_DecodeUpdate                     99998 bytes became 99998: the picture
mbedtls_base64_decode                99998 bytes became 99998: the picture
nettle_base64_decode_update          99998 bytes became 99998: the picture
EVP_DecodeBlock                      99999 bytes became 99999: the picture
BIO_f_base64                         99999 bytes became 0: other bytes
BIO_f_base64, BIO_FLAGS_BASE64_NO_NL 99999 bytes became 99999: the picture
EVP_DecodeUpdate                     99999 bytes became 99999: the picture
mbedtls_base64_decode                99999 bytes became 99999: the picture
nettle_base64_decode_update          99999 bytes became 99999: the picture
EVP_DecodeBlock                      100000 bytes became 100002: the picture and zeros
BIO_f_base64                         100000 bytes became 0: other bytes
BIO_f_base64, BIO_FLAGS_BASE64_NO_NL 100000 bytes became 100000: the picture
EVP_DecodeUpdate                     100000 bytes became 100000: the picture
mbedtls_base64_decode                100000 bytes became 100000: the picture
nettle_base64_decode_update          100000 bytes became 100000: the picture
SEEN
same expected seen
