import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

/** java Client.java KIND URL A B: the documented call with two URLs and without registered pictures. */
class Client {
    public static void main(String[] given) throws Exception {
        boolean isJson = given[0].equals("json");
        String a = given[2], b = given[3];
        String json = "{\"event_server_url\":[\"" + a + "\",\"" + b + "\"],\"real_need_reg_pic\":false,\"content-type\":\"json\"}";
        String form = "event_server_url=" + URLEncoder.encode(a, StandardCharsets.UTF_8) + "&event_server_url="
            + URLEncoder.encode(b, StandardCharsets.UTF_8) + "&real_need_reg_pic=false&content-type=json";
        String kind = isJson ? "application/json" : "application/x-www-form-urlencoded; charset=ISO-8859-1";
        HttpRequest request = HttpRequest.newBuilder(URI.create(given[1])).header("Content-Type", kind)
            .POST(HttpRequest.BodyPublishers.ofString(isJson ? json : form)).build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new Exception(answer.body());
    }
}
