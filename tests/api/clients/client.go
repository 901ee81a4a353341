// go run client.go KIND URL A B: the documented call with two URLs and without registered pictures.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"
)

func main() {
	kind, address, urls := os.Args[1], os.Args[2], os.Args[3:]
	var answer *http.Response
	var err error
	switch kind {
	case "json":
		call := map[string]any{"event_server_url": urls, "real_need_reg_pic": false, "content-type": "json"}
		body, _ := json.Marshal(call)
		answer, err = http.Post(address, "application/json", bytes.NewReader(body))
	case "form":
		form := url.Values{"event_server_url": urls, "real_need_reg_pic": {"false"}, "content-type": {"json"}}
		answer, err = http.PostForm(address, form)
	default:
		// Through a pipe: its length is not known, so it goes out in chunks.
		reader, writer := io.Pipe()
		parts := multipart.NewWriter(writer)
		go func() {
			for _, one := range urls {
				parts.WriteField("event_server_url", one)
			}
			parts.WriteField("real_need_reg_pic", "false")
			parts.WriteField("content-type", "json")
			parts.Close()
			writer.Close()
		}()
		answer, err = http.Post(address, parts.FormDataContentType(), reader)
	}
	if err != nil {
		log.Fatal(err)
	}
	said := new(strings.Builder)
	io.Copy(said, answer.Body)
	if answer.StatusCode != 200 {
		log.Fatal(said)
	}
}
