<?php // PHP as its manual has it, with its own limits. It answers with what it has received, as docs/receivers.md defines it.
$is_json = str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'application/json');
$event = $is_json ? json_decode(file_get_contents('php://input'), true) : $_POST;
$ext = $event['ext_data'] ?? [];
if (is_string($ext)) $ext = json_decode($ext, true) ?? [];
$received = [];
foreach (['reg_pic' => $event, 'spot_pic' => $ext] as $name => $holder) {
    $data = base64_decode($holder[$name] ?? '');
    if ($data !== '') $received[$name] = ['bytes' => strlen($data), 'sha256' => hash('sha256', $data)];
}
header('Content-Type: application/json');
echo json_encode(['received' => (object) $received]);
