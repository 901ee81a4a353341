<?php // Checks that a request comes from the box: `X-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of SECONDS.BODY with the key in
// SIGN_KEY_FILE, at most 5 minutes old. Without SIGN_KEY_FILE every request is accepted. PHP does not give a script the bytes
// of a form's body (php://input is empty then), so a box that signs must send JSON.

/** null stands for a form's body. */
function is_signed(?string $body): bool {
    $file = getenv('SIGN_KEY_FILE');
    if (!$file) return true;
    $has_signature = preg_match('/^t=([0-9]{1,12}),v1=([0-9a-f]{64})$/D', $_SERVER['HTTP_X_SIGNATURE'] ?? '', $parts);
    if ($body === null || !$has_signature) return false;
    $key = preg_replace('/\n$/D', '', file_get_contents($file));
    return hash_equals(hash_hmac('sha256', "$parts[1].$body", $key), $parts[2]) && abs(time() - (int) $parts[1]) < 300;
}
