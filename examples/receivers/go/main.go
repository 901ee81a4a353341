// A receiver in Go (1.19 or newer, standard library only).   STORE=/folder PORT=9528 go run main.go store.go signature.go
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// read returns the event of a request in either format.
func read(r *http.Request) (event, ext map[string]any, err error) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		err = json.NewDecoder(r.Body).Decode(&event)
		ext, _ = event["ext_data"].(map[string]any)
		return event, ext, err
	}
	if err = r.ParseMultipartForm(32 << 20); err != nil {
		return nil, nil, err
	}
	event = map[string]any{}
	for key := range r.MultipartForm.Value {
		event[key] = r.FormValue(key)
	}
	event["timestamp"], event["score"] = json.Number(r.FormValue("timestamp")), json.Number(r.FormValue("score"))
	return event, ext, json.Unmarshal([]byte(r.FormValue("ext_data")), &ext)
}

func receive(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if fault := recover(); fault != nil { // for example a full disk: the event is sent again
			http.Error(w, fmt.Sprint(fault), http.StatusInternalServerError)
		}
	}()
	r.Body = http.MaxBytesReader(w, r.Body, 32<<20)
	if !isSigned(r) {
		http.Error(w, "the signature is missing, wrong or old", http.StatusUnauthorized)
		return
	}
	event, ext, err := read(r)
	id := r.Header.Get("X-Event-Id")
	if err != nil || ext == nil || !validID.MatchString(id) {
		http.Error(w, fmt.Sprint("not an event: ", err), http.StatusBadRequest)
		return
	}
	answer := map[string]any{"status": "ok", "received": keep(id, event, ext)}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func main() {
	must(0, os.MkdirAll(store, 0o700))
	http.HandleFunc("/RealTimeEvent", receive)
	must(0, http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
