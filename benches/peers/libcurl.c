/*
 * What a user of C would pick: libcurl, with the body built in memory and OpenSSL's base64. A peer of scripts/bench.
 *
 *   libcurl URL CA_FILE    sends an event for each line "REG_PIC SPOT_PIC" of its input
 *   libcurl --version
 */
#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Grows as needed and is used again for the next event. */
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

static void append_picture(struct buffer *buffer, const char *path)
{
    static struct buffer picture;
    FILE *file = fopen(path, "rb");
    if (!file)
        abort();
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file);
    rewind(file);
    picture.length = 0;
    reserve(&picture, length);
    if (fread(picture.bytes, 1, length, file) != length)
        abort();
    fclose(file);
    reserve(buffer, (length + 2) / 3 * 4 + 1);
    buffer->length += (size_t)EVP_EncodeBlock(buffer->bytes + buffer->length, picture.bytes, (int)length);
}

static size_t ignore(char *bytes, size_t size, size_t count, void *nothing)
{
    (void)bytes, (void)nothing;
    return size * count;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        puts(curl_version());
        return 0;
    }
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:"); /* else it waits a second for a 100 before a large body */
    curl_easy_setopt(curl, CURLOPT_URL, argv[1]);
    curl_easy_setopt(curl, CURLOPT_CAINFO, argv[2]);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 2L * 1024 * 1024); /* the largest it takes */
    struct buffer body = {0};
    char reg_pic[256], spot_pic[256];
    while (scanf("%255s %255s", reg_pic, spot_pic) == 2) {
        body.length = 0;
        append(&body, "{\"identity_id\":\"100001\",\"identity_name\":\"Ada Lovelace\",\"group_name\":\"staff\",\"reg_pic\":\"");
        append_picture(&body, reg_pic);
        append(&body, "\",\"timestamp\":1700000000,\"score\":0.9,\"ext_data\":{\"device_ip\":\"192.168.1.30\","
                      "\"person_type\":1,\"device_type\":\"1\",\"spot_pic\":\"");
        append_picture(&body, spot_pic);
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
