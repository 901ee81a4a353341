/*
 * What a user of C would use: libcurl, with the body built in memory and OpenSSL's base64. A peer of scripts/bench.
 *
 *   libcurl URL CA_FILE            sends an event for each line "REG_PIC SPOT_PIC" of its input
 *   libcurl URL CA_FILE encoded    the same with files that are base64 already: the cost without base64
 *   libcurl --version
 */
#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Grows as needed; reused for the next event. */
struct buffer {
    unsigned char *bytes;
    size_t length, size;
};

static void reserve(struct buffer *buffer, size_t more)
{
    if (buffer->length + more <= buffer->size)
        return;
    buffer->size = 2 * buffer->size > buffer->length + more ? 2 * buffer->size : buffer->length + more;
    buffer->bytes = realloc(buffer->bytes, buffer->size);
    if (!buffer->bytes)
        abort();
}

static void append(struct buffer *buffer, const char *text)
{
    size_t length = strlen(text);
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, text, length);
    buffer->length += length;
}

static void append_file(struct buffer *buffer, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        abort();
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file);
    rewind(file);
    reserve(buffer, length);
    if (fread(buffer->bytes + buffer->length, 1, length, file) != length)
        abort();
    buffer->length += length;
    fclose(file);
}

static void append_picture(struct buffer *buffer, const char *path)
{
    static struct buffer picture;
    picture.length = 0;
    append_file(&picture, path);
    reserve(buffer, (picture.length + 2) / 3 * 4 + 1);
    buffer->length += (size_t)EVP_EncodeBlock(buffer->bytes + buffer->length, picture.bytes, (int)picture.length);
}

static size_t ignore(char *bytes, size_t size, size_t count, void *nothing)
{
    (void)bytes, (void)nothing;
    return size * count;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        puts(curl_version());
        return 0;
    }
    void (*append_pic)(struct buffer *, const char *) = argc > 3 ? append_file : append_picture;
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:"); /* otherwise it waits a second for a 100 before a large body */
    curl_easy_setopt(curl, CURLOPT_URL, argv[1]);
    curl_easy_setopt(curl, CURLOPT_CAINFO, argv[2]);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 2L * 1024 * 1024); /* the maximum */
    struct buffer body = {0};
    char reg_pic[256], spot_pic[256];
    while (scanf("%255s %255s", reg_pic, spot_pic) == 2) {
        body.length = 0;
        append(&body, "{\"identity_id\":\"100001\",\"identity_name\":\"Ada Lovelace\",\"group_name\":\"staff\",\"reg_pic\":\"");
        append_pic(&body, reg_pic);
        append(&body, "\",\"timestamp\":1700000000,\"score\":0.9,\"ext_data\":{\"device_ip\":\"192.168.1.30\","
                      "\"person_type\":1,\"device_type\":\"1\",\"spot_pic\":\"");
        append_pic(&body, spot_pic);
        append(&body, "\"}}");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.bytes);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.length);
        CURLcode code = curl_easy_perform(curl);
        if (code != CURLE_OK) {
            fprintf(stderr, "%s\n", curl_easy_strerror(code));
            return 1;
        }
    }
    return 0;
}
