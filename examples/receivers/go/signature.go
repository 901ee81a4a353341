package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"time"
)

var signature = regexp.MustCompile(`^t=([0-9]{1,12}),v1=([0-9a-f]{64})$`)

// isSigned checks that a request comes from the box: X-Signature is t=SECONDS,v1=HEX, HMAC-SHA256 of SECONDS.BODY with the key in
// SIGN_KEY_FILE, at most 5 minutes old. Without SIGN_KEY_FILE it accepts every request. The body can be read again afterwards.
func isSigned(r *http.Request) bool {
	file := os.Getenv("SIGN_KEY_FILE")
	if file == "" {
		return true
	}
	body, err := io.ReadAll(r.Body)
	parts := signature.FindStringSubmatch(r.Header.Get("X-Signature"))
	if err != nil || parts == nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	hash := hmac.New(sha256.New, bytes.TrimSuffix(must(os.ReadFile(file)), []byte("\n")))
	hash.Write(append([]byte(parts[1]+"."), body...))
	age := time.Now().Unix() - must(strconv.ParseInt(parts[1], 10, 64))
	return hmac.Equal(hash.Sum(nil), must(hex.DecodeString(parts[2]))) && -300 < age && age < 300
}
