<?php // A receiver in PHP 8.1 or newer. post_max_size is 8M by default: a larger form arrives EMPTY; this script checks for that.
// STORE=/folder php -d display_errors=0 -d post_max_size=32M -d memory_limit=256M -S 0.0.0.0:9528 receive.php
// (or under PHP-FPM, with these settings in php.ini)
require __DIR__ . '/signature.php';
$store = getenv('STORE') ?: 'store';

function answer(int $status, array $what): never {
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode($what));
}

/** Writes and fsyncs a file; without data, fsyncs a folder. */
function to_disk(string $path, ?string $data = null): void {
    $file = fopen($path, $data === null ? 'rb' : 'xb');
    $is_there = $file && ($data === null || fwrite($file, $data) === strlen($data)) && fsync($file);
    if ($file) fclose($file);
    if (!$is_there) throw new RuntimeException("cannot write $path");
}

// PHP without a php.ini shows warnings in its answer, and that makes every status 200: a lost event would count as stored.
if (!in_array(ini_get('display_errors'), ['', '0', 'stderr'], true)) answer(500, ['error' => 'set display_errors=0']);
if (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) !== '/RealTimeEvent') answer(404, ['error' => 'POST /RealTimeEvent']);
if ($_SERVER['REQUEST_METHOD'] !== 'POST') answer(405, ['error' => 'POST /RealTimeEvent']);
$is_json = str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'application/json');
$body = $is_json ? file_get_contents('php://input') : null;
if (!is_signed($body)) answer(401, ['error' => 'the signature is missing, wrong, old, or of a form']);
$event = $is_json ? json_decode($body, true) : $_POST;
if (!$is_json && !$_POST && $_SERVER['CONTENT_LENGTH'] > 0) answer(413, ['error' => 'larger than post_max_size']);
$id = $_SERVER['HTTP_X_EVENT_ID'] ?? '';
if (!preg_match('/^[0-9a-f]{32}-[0-9]+(-history)?$/D', $id)) answer(400, ['error' => 'X-Event-Id is missing or malformed']);
if (!is_array($event) || !isset($event['identity_id'], $event['ext_data'])) answer(400, ['error' => 'not an event']);
if (is_string($event['ext_data'])) $event['ext_data'] = json_decode($event['ext_data'], true);
$event['timestamp'] = (int) $event['timestamp'];
$event['score'] = (float) $event['score'];

$files = $received = [];
foreach (['reg_pic' => &$event, 'spot_pic' => &$event['ext_data']] as $name => &$holder) {
    $data = base64_decode($holder[$name] ?? '', true);
    if ($data === false) answer(400, ['error' => "$name is no base64"]);
    $holder[$name] = null;
    if ($data === '') continue;
    $files["$name.jpg"] = $data;
    $received[$name] = ['bytes' => strlen($data), 'sha256' => hash('sha256', $data)];
    $holder[$name] = ['file' => "$id/$name.jpg"] + $received[$name];
}
unset($holder);
$files['event.json'] = json_encode(['id' => $id] + $event) ?: answer(400, ['error' => 'not JSON: ' . json_last_error_msg()]);
$folder = "$store/.new-" . bin2hex(random_bytes(8));
register_shutdown_function(function () use ($folder, $files) { // after the rename there is nothing to delete
    foreach ($files as $name => $data) @unlink("$folder/$name");
    @rmdir($folder);
});
try {
    if (!is_dir("$store/$id")) {
        mkdir($folder, 0700, true);
        foreach ($files as $name => $data) to_disk("$folder/$name", $data);
        to_disk($folder);
        if (!@rename($folder, "$store/$id") && !is_dir("$store/$id")) throw new RuntimeException('cannot rename');
    }
    to_disk($store); // for a repeated event too: the first try may have ended just before this line
} catch (RuntimeException $error) {
    answer(500, ['error' => $error->getMessage()]); // for example a full disk: the event is sent again
}
answer(200, ['status' => 'ok', 'received' => (object) $received]);
