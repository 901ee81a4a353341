// A receiver in Go (1.19 or newer, its library alone).   STORE=/folder PORT=9528 go run main.go
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
)

var validID = regexp.MustCompile(`^[0-9a-f]{32}-[0-9]+$`)

func must[T any](value T, err error) T { // a failure becomes 500 in receive: the event comes again
	if err != nil {
		panic(err)
	}
	return value
}

func toDisk(path string, flag int, data []byte) { // a folder opened for reading: makes its entries durable
	file := must(os.OpenFile(path, flag, 0o600))
	defer file.Close()
	if len(data) > 0 {
		must(file.Write(data))
	}
	must(0, file.Sync())
}

func receive(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if fault := recover(); fault != nil {
			http.Error(w, fmt.Sprint(fault), http.StatusInternalServerError)
		}
	}()
	store, id, event, ext, received := os.Getenv("STORE"), r.Header.Get("X-Event-Id"), map[string]any{}, map[string]any{}, map[string]any{}
	r.Body = http.MaxBytesReader(w, r.Body, 32<<20)
	var err error
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		err = json.NewDecoder(r.Body).Decode(&event)
		ext, _ = event["ext_data"].(map[string]any)
	} else if err = r.ParseMultipartForm(32 << 20); err == nil {
		for key, values := range r.MultipartForm.Value {
			event[key] = values[0]
		}
		event["timestamp"], event["score"] = json.Number(r.FormValue("timestamp")), json.Number(r.FormValue("score"))
		err = json.Unmarshal([]byte(r.FormValue("ext_data")), &ext)
	}
	if err != nil || ext == nil || !validID.MatchString(id) {
		http.Error(w, fmt.Sprint("not an event: ", err), http.StatusBadRequest)
		return
	}
	event["id"], event["ext_data"] = id, ext
	folder, write := must(os.MkdirTemp(store, ".new-")), os.O_WRONLY|os.O_CREATE|os.O_EXCL
	defer os.RemoveAll(folder)
	for name, holder := range map[string]map[string]any{"reg_pic": event, "spot_pic": ext} {
		text, _ := holder[name].(string)
		if holder[name] = nil; text != "" {
			data := must(base64.StdEncoding.DecodeString(text))
			toDisk(folder+"/"+name+".jpg", write, data)
			received[name] = map[string]any{"bytes": len(data), "sha256": fmt.Sprintf("%x", sha256.Sum256(data))}
			holder[name] = map[string]any{"file": id + "/" + name + ".jpg", "bytes": len(data), "sha256": fmt.Sprintf("%x", sha256.Sum256(data))}
		}
	}
	toDisk(folder+"/event.json", write, must(json.Marshal(event)))
	toDisk(folder, os.O_RDONLY, nil)
	if err := os.Rename(folder, store+"/"+id); err != nil { // so it is where the event is stored already
		must(os.Stat(store + "/" + id + "/event.json"))
	}
	toDisk(store, os.O_RDONLY, nil)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "ok", "received": received})
}

func main() {
	must(0, os.MkdirAll(os.Getenv("STORE"), 0o700))
	http.HandleFunc("/RealTimeEvent", receive)
	must(0, http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
