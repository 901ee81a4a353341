# perl client.pl LIBRARY KIND URL A B: the documented call with two URLs and without registered pictures.
use strict;
use warnings;
my ($library, $kind, $url, $a, $b) = @ARGV;
my %form = (event_server_url => [$a, $b], real_need_reg_pic => 0, "content-type" => "json");
if ($library eq "HTTP::Tiny") {
    require HTTP::Tiny;
    my $http = HTTP::Tiny->new;
    my $json = qq({"event_server_url":["$a","$b"],"real_need_reg_pic":0,"content-type":"json"});
    my $answer = $kind eq "json"
        ? $http->post($url, { headers => { "Content-Type" => "application/json" }, content => $json })
        : $http->post_form($url, \%form);
    die $answer->{content} unless $answer->{success};
} else {
    require LWP::UserAgent;
    my @fields = (event_server_url => $a, event_server_url => $b, real_need_reg_pic => 0, "content-type" => "json");
    my %type = $kind eq "multipart" ? (Content_Type => "form-data") : ();
    my $answer = LWP::UserAgent->new->post($url, \@fields, %type);
    die $answer->content unless $answer->is_success;
}
