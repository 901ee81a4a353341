# ruby client.rb KIND URL A B: the documented call with two URLs and without registered pictures, with net/http.
require "json"
require "net/http"
kind, url, a, b = ARGV
uri = URI(url)
request = Net::HTTP::Post.new(uri)
fields = [["event_server_url", a], ["event_server_url", b], ["real_need_reg_pic", "false"], ["content-type", "json"]]
case kind
when "json"
  request.content_type = "application/json"
  request.body = JSON.generate("event_server_url" => [a, b], "real_need_reg_pic" => false, "content-type" => "json")
when "form" then request.body = URI.encode_www_form(fields); request.content_type = "application/x-www-form-urlencoded"
else request.set_form(fields, "multipart/form-data")
end
answer = Net::HTTP.new(uri.host, uri.port, nil).request(request)
abort answer.body unless answer.code == "200"
