<?php
// php client.php LIBRARY KIND URL A B: the documented call with two URLs and without registered pictures.
[, $library, $kind, $url, $a, $b] = $argv;
$call = ["event_server_url" => [$a, $b], "real_need_reg_pic" => false, "content-type" => "json"];
$type = $kind === "json" ? "application/json" : "application/x-www-form-urlencoded";
// Lists as event_server_url[0], false as 0.
$body = $kind === "json" ? json_encode($call) : http_build_query($call);
if ($library === "streams") {
    $context = stream_context_create(["http" => ["method" => "POST", "header" => "Content-Type: $type", "content" => $body]]);
    exit(file_get_contents($url, false, $context) === false ? 1 : 0);
}
$curl = curl_init($url);
if ($kind === "multipart") {
    // false as nothing.
    $body = ["event_server_url[0]" => $a, "event_server_url[1]" => $b, "real_need_reg_pic" => false, "content-type" => "json"];
    curl_setopt_array($curl, [CURLOPT_POSTFIELDS => $body]);
} else {
    curl_setopt_array($curl, [CURLOPT_POSTFIELDS => $body, CURLOPT_HTTPHEADER => ["Content-Type: $type"]]);
}
curl_setopt($curl, CURLOPT_FAILONERROR, true);
exit(curl_exec($curl) === false ? 1 : 0);
