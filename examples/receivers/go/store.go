package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
)

var store, validID = os.Getenv("STORE"), regexp.MustCompile(`^[0-9a-f]{32}-[0-9]+(-history)?$`)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// toDisk writes and fsyncs a file. For a folder opened for reading, it fsyncs the folder.
func toDisk(path string, flag int, data []byte) {
	file := must(os.OpenFile(path, flag, 0o600))
	defer file.Close()
	if len(data) > 0 {
		must(file.Write(data))
	}
	must(0, file.Sync())
}

// keep stores an event, pictures as files, in a folder named by its id. It returns the answer. A repeated event is stored once.
func keep(id string, event, ext map[string]any) map[string]any {
	event["id"], event["ext_data"] = id, ext
	folder, write, received := must(os.MkdirTemp(store, ".new-")), os.O_WRONLY|os.O_CREATE|os.O_EXCL, map[string]any{}
	defer os.RemoveAll(folder)
	for name, holder := range map[string]map[string]any{"reg_pic": event, "spot_pic": ext} {
		text, _ := holder[name].(string)
		if holder[name] = nil; text != "" {
			data := must(base64.StdEncoding.DecodeString(text))
			toDisk(folder+"/"+name+".jpg", write, data)
			sum := fmt.Sprintf("%x", sha256.Sum256(data))
			received[name] = map[string]any{"bytes": len(data), "sha256": sum}
			holder[name] = map[string]any{"file": id + "/" + name + ".jpg", "bytes": len(data), "sha256": sum}
		}
	}
	toDisk(folder+"/event.json", write, must(json.Marshal(event)))
	toDisk(folder, os.O_RDONLY, nil)
	if err := os.Rename(folder, store+"/"+id); err != nil { // this fails if the event is stored already
		must(os.Stat(store + "/" + id + "/event.json"))
	}
	toDisk(store, os.O_RDONLY, nil) // for a repeated event too: the first try may have ended just before this line
	return received
}
