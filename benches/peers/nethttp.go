// What a user of Go would use: net/http with encoding/json, which writes a []byte as base64. A peer of scripts/bench.
//
//	nethttp URL CA_FILE    sends an event for each line "REG_PIC SPOT_PIC" of its input
//	nethttp --version
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
)

type event struct {
	IdentityID   string  `json:"identity_id"`
	IdentityName string  `json:"identity_name"`
	GroupName    string  `json:"group_name"`
	RegPic       []byte  `json:"reg_pic"`
	Timestamp    int64   `json:"timestamp"`
	Score        float32 `json:"score"`
	ExtData      extData `json:"ext_data"`
}

type extData struct {
	DeviceIP   string `json:"device_ip"`
	PersonType int    `json:"person_type"`
	DeviceType string `json:"device_type"`
	SpotPic    []byte `json:"spot_pic"`
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	if len(os.Args) != 3 {
		fmt.Println(runtime.Version())
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(os.Args[2])))
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		WriteBufferSize: 64 << 10, // the default makes a system call for every 4 KiB
	}}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		regPic, spotPic, _ := strings.Cut(lines.Text(), " ")
		body := must(json.Marshal(event{
			"100001", "Ada Lovelace", "staff", must(os.ReadFile(regPic)), 1700000000, 0.9,
			extData{"192.168.1.30", 1, "1", must(os.ReadFile(spotPic))},
		}))
		answer := must(client.Post(os.Args[1], "application/json", bytes.NewReader(body)))
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 200 {
			log.Fatal(answer.Status)
		}
	}
	// scripts/bench counts calls of malloc, which Go does not use: so this program prints its own counts.
	if path := os.Getenv("ALLOCATIONS_FILE"); path != "" {
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		counts := binary.LittleEndian.AppendUint64(nil, memory.Mallocs)
		must(0, os.WriteFile(path, binary.LittleEndian.AppendUint64(counts, memory.TotalAlloc), 0o600))
	}
}
